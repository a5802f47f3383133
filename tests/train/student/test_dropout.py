"""Quick dropout against what dropout is."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from gistcache.train.student.dropout import QuickDropout


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_cells_go_with_the_given_probability_and_the_rest_is_scaled(p):
    torch.manual_seed(0)
    values = torch.ones(1001, 1003, requires_grad=True)
    with QuickDropout():
        out = F.dropout(values, p)
    (gradient,) = torch.autograd.grad(out.sum(), values)
    gone = (out == 0).double()
    cells = values.numel()
    for share, count in ((gone.mean(), cells), (gone[:, :100].mean(), 100_100)):  # five standard deviations
        assert abs(share.item() - p) < 5 * (p * (1 - p) / count) ** 0.5
    neighbours = (gone[:, 1:] * gone[:, :-1]).mean().item()
    assert neighbours == pytest.approx(p * p, abs=5 * (p * p / cells) ** 0.5)
    assert torch.allclose(out[out != 0], torch.tensor(1 / (1 - p)), rtol=1e-4)
    assert torch.equal(gradient, out.detach())


def test_torchs_seed_determines_the_masks():
    def drawn():
        with QuickDropout():
            return torch.cat([F.dropout(torch.ones(50), 0.5), F.dropout(torch.ones(50), 0.5)])

    torch.manual_seed(1)
    first, second = drawn(), drawn()
    torch.manual_seed(1)
    assert torch.equal(drawn(), first)
    assert not torch.equal(first, second)
    assert not torch.equal(first[:50], first[50:])


def test_nothing_is_dropped_where_nothing_should_be():
    values = torch.randn(7, 5)
    with QuickDropout():
        assert torch.equal(F.dropout(values, 0.0), values)
        assert torch.equal(F.dropout(values, 0.5, training=False), values)
        assert F.dropout(values, 1.0).count_nonzero() == 0
        assert torch.equal(F.relu(values), values.clamp(min=0))
