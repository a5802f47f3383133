"""The processes of one training run (ranks): what all of them hold, and what only the first one does.

Without ``torchrun`` or ``accelerate launch`` there is one, and everything here is as if it were not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import PartialState
from sentence_transformers.util.distributed import all_gather, get_rank, get_world_size
from torch import Tensor

from ..shared.errors import GistcacheError, first_line
from ..shared.progress import console


def gather(columns: Sequence[Tensor], labels: Tensor) -> tuple[list[Tensor], Tensor, int]:
    """Exchange embeddings and pair ids; what a guide says of them each process reads from its own copy of the index.

    Args:
        columns: (B, D) for each column; B is the same for all processes.
        labels: (B, ...) ids.

    Returns:
        (W * B, D) embeddings of each column of all W processes, with their gradients; (W * B, ...) ids; and which of
        these rows is this process's first.
    """
    if get_world_size() == 1:
        return list(columns), labels, 0
    everything = all_gather(torch.stack(list(columns), dim=1), with_grad=True)  # one exchange for all columns
    return list(everything.unbind(1)), all_gather(labels), get_rank() * len(labels)


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Be one of the processes that ``torchrun`` or ``accelerate launch`` has started, if there are such."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # The first process may hash, tokenise and evaluate for hours while the others wait for it.
        PartialState(cpu=device == "cpu", timeout=timedelta(days=1))
    quiet = console.quiet
    console.quiet = quiet or not is_main_process()
    try:
        yield
    finally:
        if dist.is_initialized():  # a process that ends with its group open can be aborted by the group's threads
            dist.destroy_process_group()


def is_main_process() -> bool:
    """Whether this is the process that writes and speaks."""
    return get_rank() == 0


def wait() -> None:
    """Wait until all processes are here."""
    if get_world_size() > 1:
        with _peers_told():
            dist.barrier()


@contextmanager
def main_process_first() -> Iterator[None]:
    """Let the first process do the block alone; the others then find what it has made."""
    if not is_main_process():
        wait()
    yield
    if is_main_process():
        wait()


def all_reduce_sum(counts: Sequence[float]) -> list[float]:
    """Sum each count over the processes, exact up to 2**53; every process has to call this."""
    if get_world_size() == 1:
        return list(counts)
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    summed = torch.tensor(counts, dtype=torch.float64, device=device)
    with _peers_told():
        dist.all_reduce(summed)
    return summed.tolist()


def average_gradient(parameter: Tensor) -> None:
    """Let a parameter outside the model take the mean of all processes' gradients, as DDP does for those inside."""

    def mean(gradient: Tensor) -> Tensor:
        if get_world_size() == 1:
            return gradient
        dist.all_reduce(gradient)
        return gradient / get_world_size()

    parameter.register_hook(mean)


@contextmanager
def _peers_told() -> Iterator[None]:
    """Say in one line that another process has gone, which tells the reason itself."""
    try:
        yield
    except RuntimeError as error:
        raise GistcacheError(
            "Another process of this run has ended", where=first_line(error), fix="see its own message"
        ) from error
