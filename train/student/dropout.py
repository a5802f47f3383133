"""Dropout whose random numbers are cheap on a CPU.

Torch draws the mask of a CPU dropout number by number, which costs a tenth of a small student's step. Here 16 bits of a
fast generator (SFC64) decide each cell. What is learnt is the same: a cell stays with the layer's own probability, to
1 in 100,000, and is scaled as always.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

LEVELS = 2**16
DRAWN_AT_ONCE = 4  # 16-bit numbers in one of the generator's 64-bit ones


class QuickDropout(TorchFunctionMode):
    """Within this context, dropout of CPU tensors draws its mask from a fast generator.

    The generator is seeded by torch's own, so that a seed, a resumed run and a replayed pass see the same masks.
    """

    def __init__(self) -> None:
        super().__init__()
        self._source = np.random.SFC64(int(torch.randint(2**62, ())))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 (whatever the function returns)
        """Answer for dropout; hand on everything else."""
        if func is F.dropout:
            return self._dropout(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _dropout(self, values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return values
        if values.device.type != "cpu" or p == 1 or inplace:
            return F.dropout(values, p, training, inplace)
        dropped = round(p * LEVELS)
        drawn = self._source.random_raw(-(-values.numel() // DRAWN_AT_ONCE)).view(np.int16)[: values.numel()]
        stays = torch.from_numpy(drawn) >= dropped - LEVELS // 2
        return values * stays.to(values.dtype).mul_(LEVELS / (LEVELS - dropped)).view_as(values)
