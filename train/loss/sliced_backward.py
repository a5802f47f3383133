"""The gradient of a loss in slices of rows, so that memory does not grow with the square of the batch.

Values are summed, and every slice's gradient is computed before the next slice: the result is that of one pass over
all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def in_row_slices(inputs: Sequence[Tensor], rows: Tensor, slice_rows: int, loss: Callable[..., Tensor]) -> Tensor:
    """Sum a loss over slices of rows, with its gradient; only the graph of one slice is in memory at a time.

    Args:
        inputs: Tensors that every row may depend on.
        rows: (R,) row numbers.
        slice_rows: Rows a slice.
        loss: ``loss(row numbers, *inputs)`` gives the sum of the loss over these rows, a scalar.

    Returns:
        A scalar whose backward pass gives every input its gradient.
    """
    if not torch.is_grad_enabled():
        return torch.stack([loss(chunk, *inputs) for chunk in rows.split(slice_rows)]).sum()
    leaves = [each.detach().requires_grad_() for each in inputs]
    total = torch.zeros((), device=inputs[0].device)
    for chunk in rows.split(slice_rows):
        value = loss(chunk, *leaves)
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
