"""The gradient of a loss in slices of rows, so that memory does not grow with the square of the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
        A scalar whose backward pass gives every input its gradient, which is that of one pass over all rows.
    """
    if not torch.is_grad_enabled():
        return torch.stack([loss(chunk, *inputs) for chunk in rows.split(slice_rows)]).sum()
    leaves = [each.detach().requires_grad_() for each in inputs]
    total = torch.zeros((), device=inputs[0].device)
    for chunk in rows.split(slice_rows):
        value = loss(chunk, *leaves)
        value.backward()
        total += value.detach()
    # The gradients are computed: a sum of zeros hands each on to its input.
    for leaf, each in zip(leaves, inputs, strict=True):
        if leaf.grad is not None:
            total = total + (leaf.grad * (each - each.detach())).sum()
    return total
