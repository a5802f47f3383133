"""What the settings of stage 2 refuse before anything is read."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
from gistcache.shared.errors import SettingsError
from gistcache.shared.settings import with_fields
from gistcache.train.settings import (
    DistillationSettings,
    HardNegativeSettings,
    LossSettings,
    TrainSettings,
)


def asked(**changes):
    return TrainSettings(student="nowhere", **changes)


@pytest.mark.parametrize(
    ("flag", "make"),
    [
        ("--margin", lambda: LossSettings(loss="unguided", margin=0.1)),
        ("--judge", lambda: LossSettings(loss="unguided", judge="neighborhood")),
        ("--judge-threshold", lambda: LossSettings(judge_threshold=0.5)),
        ("--judge-quantile", lambda: LossSettings(judge_quantile=0.25)),
        ("--draw", lambda: HardNegativeSettings(draw="top")),
        (
            "--negative-margin-strategy",
            lambda: HardNegativeSettings(hard_negatives=1, negative_margin_strategy="absolute"),
        ),
        ("--kl-guide-temperature", lambda: DistillationSettings(kl_guide_temperature=0.1)),
        ("--margin-strategy", lambda: LossSettings(margin_strategy="relative")),
    ],
)
def test_a_flag_without_effect_is_refused(flag, make):
    with pytest.raises(SettingsError, match="no effect without") as caught:
        make()
    assert caught.value.where == flag


@pytest.mark.parametrize(
    ("flag", "make"),
    [
        ("--out", lambda: asked(out=Path("s3://bucket/run"))),
        ("--judge-quantile", lambda: LossSettings(judge="neighborhood", judge_quantile=1.5)),
        ("--judge-threshold", lambda: LossSettings(judge="neighborhood", judge_threshold=1.0, judge_quantile=0.25)),
    ],
)
def test_what_cannot_be_done_is_refused(flag, make):
    with pytest.raises(SettingsError) as caught:
        make()
    assert caught.value.where.startswith(flag)
    assert caught.value.fix


def test_with_what_they_need_they_are_taken():
    LossSettings(
        judge="neighborhood", judge_threshold=0.5, margin=0.1, mining=HardNegativeSettings(hard_negatives=1, draw="top")
    )
    DistillationSettings(kl_weight=1, kl_guide_temperature=0.1)


@pytest.mark.parametrize(
    ("name", "value"), [("epochs", math.nan), ("learning_rate", math.inf), ("warmup", 1.0), ("weight_decay", -1.0)]
)
def test_a_number_out_of_its_range_is_refused(name, value):
    with pytest.raises(SettingsError) as caught:
        asked(**{name: value})
    assert caught.value.where == f"--{name.replace('_', '-')}"


def test_fields_of_nested_settings_are_replaced_by_their_own_names():
    changed = with_fields(asked(), temperature=0.02, kl_weight=1.0, hard_negatives=2, draw="top", seed=3)
    assert changed == asked(
        seed=3,
        objective=LossSettings(
            temperature=0.02,
            mining=HardNegativeSettings(hard_negatives=2, draw="top"),
            terms=DistillationSettings(kl_weight=1.0),
        ),
    )
    with pytest.raises(TypeError, match="temprature"):
        with_fields(asked(), temprature=0.02)


def test_package_settings_and_commands_load_no_library():
    modules = ["train", "train.settings", "train.command", "train.sweep.command"]
    code = f"import {', '.join(f'gistcache.{name}' for name in modules)}, sys\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"torch", "numpy", "pyarrow", "polars", "faiss", "transformers", "sentence_transformers", "datasets"}
    assert not heavy & set(loaded)
