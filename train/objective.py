"""What is learnt from a batch: the settings of loss, judge, hard negatives and score terms, checked at once."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from cyclopts import Parameter

from ..shared.errors import SettingsError, refuse_below, refuse_idle
from .batches.hard_negatives import HardNegativeSettings
from .loss.distillation import DistillationSettings
from .loss.judges import JudgeName, MarginStrategy
from .loss.panel import Vote


@Parameter(name="*", group="Loss and judge")
@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """Who says what is a false negative."""

    judge: JudgeName = "positive"
    """Who is a false negative. `positive`: a candidate closer to the anchor than its own positive, as in the paper;
    `neighborhood`: pairs as related as an anchor and its positive are, by the scale of each text's neighbourhood."""
    judge_threshold: float | None = None
    """Relatedness above which --judge neighborhood removes; default: what the index asks for."""
    judge_quantile: float = 0.5
    """What the index asks for: this quantile of how related anchors are to their own positives. Less removes more."""
    margin: float = 0.0
    """How far below the judge's threshold a candidate leaves already; greater removes more."""
    margin_strategy: MarginStrategy = "absolute"
    """`absolute`: score - margin; `relative`: score - abs(score) * margin."""

    def __post_init__(self) -> None:
        """Check every value."""
        refuse_below(self, 0, "margin")
        if not self.margin:
            refuse_idle(self, ("margin_strategy",), "--margin")
        refuse_below(self, 0, "judge_quantile")
        if self.judge_quantile > 1:
            raise SettingsError(f"{self.judge_quantile} is no quantile", where="--judge-quantile", fix="give 0 to 1")
        if self.judge != "neighborhood":
            refuse_idle(self, ("judge_threshold", "judge_quantile"), "--judge neighborhood")
        elif self.judge_threshold is not None and self.judge_quantile != JudgeSettings.judge_quantile:
            raise SettingsError(
                "A threshold that is given needs no quantile",
                where="--judge-threshold --judge-quantile",
                fix="leave one of both out",
            )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LossSettings(JudgeSettings):
    """What is learnt from a batch."""

    loss: Literal["guided", "unguided"] = "guided"
    """`unguided` trains without the guide's judgement, for comparison."""
    temperature: float = 0.05
    """Similarities are divided by it. The paper's is 0.01; docs/CHOOSING.md says why it is higher here."""
    judge_softness: float = 0.0
    """0 takes false negatives out. Above 0 each candidate stays, with the weight sigmoid((threshold - score) / this):
    with 0.05 a half at the threshold, and a fiftieth 0.2 above it."""
    vote: Vote = "mean"
    """How several guides (--index A --index B) agree: a candidate leaves by `any`, `all`, or the `mean` of their
    standardised scores."""
    contrast_anchors: bool = True
    """Push anchors apart from anchors."""
    contrast_positives: bool = True
    """Push positives apart from positives."""
    negatives: int | None = None
    """Negatives of each pair to use; default: the most that any pair has."""
    mining: HardNegativeSettings = field(default_factory=HardNegativeSettings)
    """Hard negatives from the stored neighbours."""
    terms: DistillationSettings = field(default_factory=DistillationSettings)
    """What is learnt from the scores themselves."""

    def __post_init__(self) -> None:
        """Check every value."""
        super().__post_init__()
        refuse_below(self, 0, "temperature", strictly=True)
        refuse_below(self, 0, "judge_softness", "negatives")
        if self.loss == "unguided":
            refuse_idle(
                self, (*(each.name for each in fields(JudgeSettings)), "judge_softness", "vote"), "--loss guided"
            )
