"""The `gistcache` command; a stage is loaded only when it is called."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import App, Group, Parameter

from ..errors import GistcacheError, StoppedEarly
from ..progress import console, shows_bars
from .config_file import as_toml, read_toml
from .main import told_to_stop
from .output import CommandResult, show

PACKAGE = (__package__ or "gistcache.shared.cli").rpartition(".shared")[0]
EXIT_CODES = (
    "0 done, or told to end with a checkpoint kept; 1 other errors, failed runs of a sweep, faults that doctor found; "
    "2 flags and settings; 3 input files; 4 models; 5 the index is absent or damaged; 6 the folder holds something "
    "else than was asked for; 7 another process is writing; 8 object storage; 130 Ctrl-C; 143 SIGTERM"
)
# Tables of a sweep file, which is no settings file.
OF_A_SWEEP: dict[str, str] = dict.fromkeys(
    ("settings", "grid", "runs"), "a sweep file is given to `gistcache sweep FILE`"
)

GLOBAL = Group("Of every command")


def _default_in_help(value: object) -> str | None:
    """A flag's default as it is typed; None where the flag's text says what happens without it."""
    if value is None or value == ():
        return None
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


app = App(
    name="gistcache",
    help="Guided contrastive fine-tuning of small embedding models, with the guide run once, offline.",
    help_epilogue=f"Exit codes: {EXIT_CODES}.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # launch.py answers for it
    default_parameter=Parameter(show_default=_default_in_help),
)
app.meta.suppress_keyboard_interrupt = False
app.meta.result_action = "return_value"
app.command(f"{PACKAGE}.precompute.command:index", name="index", help="Embed pairs with a guide, once: stage 1.")
app.command(f"{PACKAGE}.precompute.rerank.command:rescore", name="rescore", help="Score neighbours with a reranker.")
app.command(f"{PACKAGE}.train.command:train", name="train", help="Train a student against a guide index: stage 2.")
app.command(f"{PACKAGE}.train.batches.mine:mine", name="mine", help="Write hard negatives as Parquet or JSONL.")
app.command(f"{PACKAGE}.shared.cli.verify:verify", name="verify", help="Check every part of a guide index.")
app.command(
    f"{PACKAGE}.precompute.report.command:report", name="report", help="One page of an index and of training runs."
)
app.command(f"{PACKAGE}.shared.cli.evaluate:evaluate", name="eval", help="Evaluate a model on pairs, STS or MTEB.")
app.command(
    f"{PACKAGE}.train.sweep.command:sweep", name="sweep", help="Train many students against one index; rank them."
)
app.command(f"{PACKAGE}.shared.cli.doctor:doctor", name="doctor", help="What is installed here, and what is missing.")
app.register_install_completion_command(help="Let the shell complete commands and flags (bash, zsh, fish).")


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Annotated[Path | None, Parameter(group=GLOBAL)] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="", group=GLOBAL)] = False,
    quiet: Annotated[bool, Parameter(negative="", group=GLOBAL)] = False,
    print_config: Annotated[bool, Parameter(negative="", group=GLOBAL)] = False,
    debug: Annotated[bool, Parameter(negative="", group=GLOBAL)] = False,
) -> int:
    """Run a command.

    Parameters
    ----------
    config
        TOML file with a table for each command; flags on the command line win.
    as_json
        Print what the command found out as one JSON object, not as a table.
    quiet
        Print errors only: no progress, no table.
    print_config
        Print the settings that the command would use, as TOML for --config, and do nothing.
    debug
        Show tracebacks.
    """
    del debug
    if config is not None:
        commands = [name for name in app if not name.startswith("-")]
        read_toml(config, commands, OF_A_SWEEP)  # its faults, told in our own way
        app.config = cyclopts.config.Toml(config)
    command, bound, _ = app.parse_args(tokens)
    if isinstance(getattr(command, "__self__", None), App):  # --help, --version
        command(*bound.args, **bound.kwargs)
        return 0
    if print_config:
        bound.apply_defaults()
        sys.stdout.write(as_toml(app.parse_commands(tokens)[0][0], bound.arguments))
        return 0
    with redirect_stdout(sys.stderr):  # what libraries print is progress, not a result
        outcome = command(*bound.args, **bound.kwargs)
    if (
        not isinstance(outcome, CommandResult) or os.environ.get("RANK", "0") != "0"
    ):  # of a run's processes the first speaks
        return 0
    return show(outcome, as_json=as_json, quiet=quiet)


def _hush(quiet: bool) -> None:
    """Keep libraries' warnings and bars away where they have no place; they read this when they are loaded."""
    console.quiet = quiet
    if quiet:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        logging.getLogger().setLevel(logging.ERROR)
        logging.captureWarnings(True)
    if not shows_bars():
        os.environ.setdefault("TQDM_DISABLE", "1")


def run() -> int:
    """Run a command: errors of the product become one message and an exit code, never a traceback."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # Every batch has new shapes, and oneDNN would hold the working memory of 1,024 of them. Read before torch starts.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    _hush("--quiet" in sys.argv)
    try:
        return app.meta(sys.argv[1:]) or 0  # --help hands nothing back
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
