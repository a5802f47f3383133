"""Gradients in pieces, so that memory does not grow with the batch: row slices of a loss, mini-batches of texts.

Both keep what one pass over everything would give: values are summed, and every piece's gradient is taken before the
next piece is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from sentence_transformers.base.losses.gradcache import RandContext
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..shared.features import Features, is_padded_text, row_lengths, split_by_budget, take_rows
from .forward import embed, groups_of


def in_row_slices(inputs: Sequence[Tensor], rows: Tensor, slice_rows: int, loss: Callable[..., Tensor]) -> Tensor:
    """The sum of a loss over slices of rows, with its gradient, holding the graph of one slice at a time.

    Args:
        inputs: Tensors that every row may depend on.
        rows: (R,) row numbers.
        slice_rows: Rows a slice.
        loss: ``loss(row numbers, *inputs)`` gives the sum of the loss over these rows, a scalar.

    Returns:
        A scalar whose backward pass gives every input its gradient.
    """
    if not torch.is_grad_enabled():
        return torch.stack([loss(part, *inputs) for part in rows.split(slice_rows)]).sum()
    leaves = [each.detach().requires_grad_() for each in inputs]
    total = torch.zeros((), device=inputs[0].device)
    for part in rows.split(slice_rows):
        value = loss(part, *leaves)
        value.backward()
        total += value.detach()
    gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    return _WithGradients.apply(total, len(leaves), *gradients, *inputs)  # type: ignore[return-value]


class _WithGradients(torch.autograd.Function):
    """A value and its gradients, computed beforehand, as a node of the graph."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, count: int, *tensors: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(*tensors[:count])
        return total.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        gradients = ctx.saved_tensors
        return (None, None, *(None for _ in gradients), *(grad_outputs[0] * gradient for gradient in gradients))


@dataclass(frozen=True)
class _MiniBatch:
    """Texts that go through the model together, which rows of the batch they are, and the dropout they met."""

    features: Features
    rows: Tensor | None
    random: RandContext


class GradientCache:
    """A batch of any size in the memory of a small one (gradient caching; Gao et al. 2021, arXiv 2101.06983).

    Texts are embedded mini-batch by mini-batch without a graph. The loss is computed once, over all embeddings, and its
    gradient with respect to each embedding is kept. In the backward pass every mini-batch is embedded again, with the
    same dropout, and takes its gradients.

    Args:
        model: The student.
        columns: Features of the batch's columns.
        tokens: Most padded tokens of a mini-batch.

    Attributes:
        embeddings: (rows, D) for each column, as leaves that collect their gradients.
    """

    def __init__(self, model: nn.Module, columns: Sequence[Features], tokens: int) -> None:
        self.model = model
        self._autocast = _autocast_now()
        self._groups: list[list[_MiniBatch]] = []
        embedded = []
        for group in groups_of(columns):
            self._groups.append([])
            embedded.append(self._embed_group(group, tokens, self._groups[-1]))
        rows = [len(column["input_ids"]) for column in columns] if len(embedded) < len(columns) else None
        self._embedded = [each.requires_grad_() for each in embedded]
        self.embeddings = self._embedded if rows is None else list(self._embedded[0].split(rows))

    @torch.no_grad()
    def _embed_group(self, group: Features, tokens: int, made: list[_MiniBatch]) -> Tensor:
        out: Tensor | None = None
        for features, rows in _mini_batches(group, tokens):
            made.append(_MiniBatch(features, rows, RandContext(*features.values())))
            vectors = embed(self.model, features).float()
            if rows is None:
                return vectors
            out = vectors.new_empty((len(group["input_ids"]), vectors.shape[1])) if out is None else out
            out[rows] = vectors
        assert out is not None
        return out

    def attach(self, value: Tensor) -> Tensor:
        """Make the backward pass of a loss, whose gradients the embeddings have collected, go on into the model."""
        value = value.detach().requires_grad_()
        value.register_hook(self._replay)
        return value

    def _replay(self, upstream: Tensor) -> None:
        pieces = [
            (piece, each.grad) for group, each in zip(self._groups, self._embedded, strict=True) for piece in group
        ]
        for number, (piece, gradients) in enumerate(pieces, 1):
            assert gradients is not None
            gradient = gradients if piece.rows is None else gradients[piece.rows]
            with ExitStack() as stack:
                stack.enter_context(torch.enable_grad())
                stack.enter_context(piece.random)
                stack.enter_context(self._autocast())
                stack.enter_context(_synchronised(self.model, last=number == len(pieces)))
                vectors = embed(self.model, piece.features).float()
                vectors.backward(gradient * upstream)


def _mini_batches(group: Features, tokens: int) -> Iterator[tuple[Features, Tensor | None]]:
    """Mini-batches of similar length; features that cannot be cut stay whole."""
    if not is_padded_text(group):
        yield group, None
        return
    lengths = row_lengths(group)
    for rows in split_by_budget(lengths, tokens):
        width = int(lengths[rows].max())
        yield take_rows(group, rows, width), torch.as_tensor(rows, device=group["input_ids"].device)


def _autocast_now() -> Callable[[], AbstractContextManager[Any]]:
    """The autocast state of this moment, to enter again: the backward pass runs outside of it."""
    for device in ("cuda", "cpu"):
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            return lambda: torch.autocast(device, dtype=dtype)
    return nullcontext


@contextmanager
def _synchronised(model: nn.Module, *, last: bool) -> Iterator[None]:
    """Let the processes of a distributed run exchange gradients once, with the last mini-batch."""
    with model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext():
        yield
