"""The `gistcache` command: its subcommands, each imported when it is called, its global flags and its exit codes."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import App, Group, Parameter
from rich.text import Text

from ..errors import GistcacheError, StoppedEarly
from ..progress import console, shows_bars
from .config_file import as_toml, read_toml, refuse_renamed
from .output import CommandResult, print_result

COMMANDS = {
    "index": ("precompute.command:index", "Embed pairs with a guide, once: stage 1."),
    "rescore": ("precompute.rerank.command:rescore", "Score neighbors with a reranker."),
    "train": ("train.command:train", "Train a student against a guide index: stage 2."),
    "mine": ("train.batches.mine_command:mine", "Write hard negatives as Parquet or JSONL."),
    "verify": ("shared.cli.verify:verify", "Check every file of a guide index."),
    "report": ("precompute.report.command:report", "Write a page about an index and training runs."),
    "eval": ("shared.cli.evaluate:evaluate", "Evaluate a model on pairs, STS or MTEB."),
    "sweep": ("train.sweep.command:sweep", "Train many students against one index; rank them."),
    "doctor": ("shared.cli.doctor:doctor", "Show what is installed, and what is missing."),
}
EXIT_CODES = (
    "0 success, or stopped with a checkpoint saved; 1 other errors, failed runs of a sweep, faults that doctor found; "
    "2 flags and settings; 3 input files; 4 models; 5 the index is absent or damaged; 6 the folder holds something "
    "else than was requested; 7 another process is writing; 8 object storage; 130 Ctrl-C; 143 SIGTERM"
)
GLOBAL = Group("Of every command")


def _default_in_help(value: object) -> str | None:
    """A flag's default as it is typed; None where the flag's text says what happens without it."""
    if value is None or value == ():
        return None
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


app = App(
    name="gistcache",
    help="Guided contrastive fine-tuning of small embedding models, with the guide run once, offline.",
    help_epilogue=f"Exit codes: {EXIT_CODES}.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # main.py handles it
    default_parameter=Parameter(show_default=_default_in_help),
)
app.meta.suppress_keyboard_interrupt = False
app.meta.result_action = "return_value"
for _name, (_function, _help) in COMMANDS.items():
    app.command(f"gistcache.{_function}", name=_name, help=_help)
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
        Print the command's result as one JSON object, not as a table.
    quiet
        Print errors only: no progress, no table.
    print_config
        Print the settings that the command would use, as TOML for --config, and do nothing.
    debug
        Show tracebacks.
    """
    refuse_renamed((token for token in tokens if token.startswith("--")), "the command line")
    if config is not None:
        read_toml(config, COMMANDS)  # refuses a faulty file with our own errors
        app.config = cyclopts.config.Toml(config)
    command, bound, _ = app.parse_args(tokens)
    if isinstance(getattr(command, "__self__", None), App):  # --help, --version
        command(*bound.args, **bound.kwargs)
        return 0
    if print_config:
        bound.apply_defaults()
        sys.stdout.write(as_toml(app.parse_commands(tokens)[0][0], bound.arguments))
        return 0
    with redirect_stdout(sys.stderr):  # what libraries print is no result
        result = command(*bound.args, **bound.kwargs)
    if not isinstance(result, CommandResult):
        return 0
    if os.environ.get("RANK", "0") == "0":
        print_result(result, as_json=as_json, quiet=quiet)
    return result.exit_code


def run(signals: Sequence[int] = ()) -> int:
    """Run a command: an error becomes a message and an exit code; after one of ``signals``, it is their consequence."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # Every batch has new shapes, and oneDNN would keep the working memory of 1,024 of them. Read when torch starts.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    console.quiet = "--quiet" in sys.argv
    if console.quiet:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        logging.getLogger().setLevel(logging.ERROR)
        logging.captureWarnings(True)
    if not shows_bars():
        os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        return app.meta(sys.argv[1:]) or 0  # --help returns None
    except StoppedEarly as stopped:
        console.print(Text(str(stopped)), soft_wrap=True)
        return stopped.exit_code
    except (GistcacheError, OSError) as error:
        if signals:
            raise KeyboardInterrupt from error
        if "--debug" in sys.argv:
            traceback.print_exc()
        ours = error if isinstance(error, GistcacheError) else _system_error(error)
        console.quiet = False  # also on ranks that print nothing else
        console.print(Text.assemble(("error:", "bold red"), f" {ours}"), soft_wrap=True)
        return ours.exit_code


def _system_error(error: OSError) -> GistcacheError:
    fix = "check the disk and the folder's permissions, then run the same command again: finished shards are kept"
    return GistcacheError(error.strerror or str(error), where=str(error.filename or ""), fix=fix)
