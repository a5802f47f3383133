"""Linear layers on processors where torch's own float32 products run at half their rate.

On x86 torch multiplies float32 matrices with MKL, which uses AVX-512 on Intel's processors only. oneDNN, which every
build of torch carries too, uses it on all that have it. The product and its number type are the same; sums are taken in
another order.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


@cache
def onednn_pays() -> bool:
    """Whether this is an x86 processor with AVX-512 that is not Intel's, and this torch carries oneDNN's product.

    It is not timed: a processor always gets the same answer, so that results repeat.
    """
    cpu = Path("/proc/cpuinfo")
    return (
        cpu.is_file()
        and "GenuineIntel" not in cpu.read_text(encoding="utf-8", errors="replace")
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkldnn.is_available()
        and _product_agrees()
    )


def _product_agrees() -> bool:
    """Try the product once: it is no public function of torch, and may be missing or another one day."""
    left, right = torch.eye(3, 4), torch.arange(8.0).reshape(2, 4)
    try:
        return torch.allclose(_product(left, right), left @ right.T)
    except (AttributeError, RuntimeError, TypeError):
        return False


class OneDNNLinear(TorchFunctionMode):
    """Within this context, linear layers of float32 CPU tensors go through oneDNN where that pays."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Answer for linear layers; hand on everything else."""
        del types
        if func is F.linear and not kwargs and onednn_pays() and _is_plain(*args[:2]):
            return linear(*args)
        return func(*args, **(kwargs or {}))


def linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``values @ weight.T + bias`` by oneDNN, with its gradient.

    Args:
        values: (..., K) float32 on the CPU.
        weight: (N, K) float32.
        bias: (N,) or None.

    Returns:
        (..., N).
    """
    flat = values.flatten(0, -2)
    return _Linear.apply(flat, weight, bias).unflatten(0, values.shape[:-1])  # type: ignore[union-attr]


def _is_plain(values: Any, weight: Any) -> bool:  # noqa: ANN401 (arguments of any call)
    return (
        all(isinstance(each, Tensor) and each.device.type == "cpu" for each in (values, weight))
        and values.dtype == weight.dtype == torch.float32
        and values.ndim >= 2
        and values.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    )


def _product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """(M, K) and (N, K) -> (M, N): ``left @ right.T + bias``."""
    return torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(values if ctx.needs_input_grad[1] else None, weight)  # a frozen layer's are let go
        return _product(values, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        values, weight = ctx.saved_tensors
        gradient = grad_outputs[0].contiguous()
        for_values, for_weight, for_bias = ctx.needs_input_grad
        return (
            _product(gradient, weight.T) if for_values else None,
            _product(gradient.T, values.T) if for_weight else None,
            gradient.sum(0) if for_bias else None,
        )
