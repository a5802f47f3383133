"""The processes of one training run: how they start, wait for each other, and exchange tensors and counts.

Rank 0 alone writes files and prints. Without ``torchrun`` or ``accelerate launch`` nothing here does anything.
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
    """Gather embeddings and pair ids of all ranks; each rank looks the guide's vectors up in its own copy of the index.

    Args:
        columns: (B, D) for each column; B is the same on all ranks.
        labels: (B, ...) int64 ids.

    Returns:
        For W ranks, (W * B, D) of each column with gradients, (W * B, ...) ids, and the first row that is this rank's.
    """
    if get_world_size() == 1:
        return list(columns), labels, 0
    gathered = all_gather(torch.stack(list(columns), dim=1), with_grad=True)  # one exchange for all columns
    return list(gathered.unbind(1)), all_gather(labels), get_rank() * len(labels)


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Join the process group that ``torchrun`` or ``accelerate launch`` has started, if there is one."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # Rank 0 may hash, tokenize and evaluate for hours while the others wait for it.
        PartialState(cpu=device == "cpu", timeout=timedelta(days=1))
    console.quiet = console.quiet or not is_main_process()
    try:
        yield
    finally:
        if dist.is_initialized():  # a process that exits with its group open can be aborted by the group's threads
            dist.destroy_process_group()


def is_main_process() -> bool:
    """Whether this is rank 0, the process that writes and prints."""
    return get_rank() == 0


def barrier() -> None:
    """Wait until all ranks are here."""
    if get_world_size() > 1:
        with _lost_peer():
            dist.barrier()


@contextmanager
def main_process_first() -> Iterator[None]:
    """Let rank 0 run the block alone; the other ranks run it afterwards and find the files that it wrote."""
    if not is_main_process():
        barrier()
    yield
    if is_main_process():
        barrier()


def all_reduce_sum(counts: Sequence[float]) -> list[float]:
    """Sum each count over the ranks; all ranks have to call it."""
    if get_world_size() == 1:
        return list(counts)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    summed = torch.tensor(counts, dtype=torch.float64, device=device)  # exact for whole numbers up to 2**53
    with _lost_peer():
        dist.all_reduce(summed)
    return summed.tolist()


def average_gradient(parameter: Tensor) -> None:
    """Average the gradient of a parameter outside the model over the ranks, as DDP does for those inside."""

    def mean(gradient: Tensor) -> Tensor:
        if get_world_size() == 1:
            return gradient
        dist.all_reduce(gradient)
        return gradient / get_world_size()

    parameter.register_hook(mean)


@contextmanager
def _lost_peer() -> Iterator[None]:
    """Turn the failure of a collective call into one line: another rank has ended, and prints the reason itself."""
    try:
        yield
    except RuntimeError as error:
        raise GistcacheError(
            "Another process of this run has ended", where=first_line(error), fix="see its own message"
        ) from error
