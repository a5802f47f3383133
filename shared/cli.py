"""The `gistcache` command; a stage is loaded only when it is called."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import App, Parameter

from .errors import GistcacheError, SettingsError, StoppedEarly
from .launch import told_to_stop
from .progress import console

PACKAGE = (__package__ or "gistcache.shared").rpartition(".")[0]

app = App(
    name="gistcache",
    help="Guided contrastive fine-tuning of small embedding models, with the guide run once, offline.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # launch.py answers for it
)
app.meta.suppress_keyboard_interrupt = False
app.command(f"{PACKAGE}.precompute.command:index", name="index", help="Embed pairs with a guide, once: stage 1.")
app.command(f"{PACKAGE}.train.command:train", name="train", help="Train a student against a guide index: stage 2.")
app.command(f"{PACKAGE}.shared.verify:verify", name="verify", help="Check every part of a guide index.")
app.command(f"{PACKAGE}.shared.plan_command:plan", name="plan", help="What an index of a given size will take.")
app.command(f"{PACKAGE}.precompute.report:report", name="report", help="One page of an index and of training runs.")
app.command(f"{PACKAGE}.shared.eval_command:evaluate", name="eval", help="Evaluate a model on held-out pairs or STS.")


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Path | None = None,
    debug: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Run a command.

    Parameters
    ----------
    config
        TOML file with a table for each command; flags on the command line win.
    debug
        Show tracebacks.
    """
    del debug
    if config is not None:
        if not config.is_file():
            raise SettingsError("There is no such file", where=f"--config {config}")
        app.config = cyclopts.config.Toml(config)
    app(tokens)


def run() -> int:
    """Run a command: errors of the product become one message and an exit code, never a traceback."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # Every batch has new shapes, and oneDNN would hold the working memory of 1,024 of them. Read before torch starts.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app.meta()
    except StoppedEarly as stopped:
        console.print(_plain(str(stopped)), highlight=False, soft_wrap=True)
        return stopped.exit_code
    except (GistcacheError, OSError) as error:
        if told_to_stop():
            raise KeyboardInterrupt from error
        if "--debug" in sys.argv:
            traceback.print_exc()
        console.quiet = False  # also where another process of the run does the talking
        told = error if isinstance(error, GistcacheError) else _of_the_system(error)
        console.print(f"[bold red]error:[/] {_plain(str(told))}", highlight=False, soft_wrap=True)
        return told.exit_code
    return 0


def _of_the_system(error: OSError) -> GistcacheError:
    """A full disk, a folder that may not be written or went away: what the system says, and where."""
    return GistcacheError(
        error.strerror or str(error),
        where=str(error.filename or ""),
        fix="check the disk and the folder's permissions, then run the same command again: finished parts are kept",
    )


def _plain(text: str) -> str:
    """Text with rich's markup switched off."""
    return text.replace("[", "\\[")
