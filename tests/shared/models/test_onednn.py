"""Linear layers through oneDNN against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from gistcache.shared.models import onednn as module
from gistcache.shared.models.onednn import OneDNNLinear, linear

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch carries no oneDNN")


@needs_onednn
@pytest.mark.parametrize("shape", [(7, 12), (2, 5, 12), (1, 300, 12)])
@pytest.mark.parametrize("biased", [True, False])
def test_value_and_gradients_are_those_of_torch(shape, biased):
    torch.manual_seed(0)
    values, weight = torch.randn(shape, requires_grad=True), torch.randn(9, 12, requires_grad=True)
    bias = torch.randn(9, requires_grad=True) if biased else None
    inputs = [each for each in (values, weight, bias) if each is not None]
    upstream = torch.randn(*shape[:-1], 9)
    ours, expected = linear(values, weight, bias), F.linear(values, weight, bias)
    assert torch.allclose(ours, expected, atol=1e-5)
    found = torch.autograd.grad((ours * upstream).sum(), inputs)
    for mine, theirs in zip(found, torch.autograd.grad((expected * upstream).sum(), inputs), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


@needs_onednn
def test_only_float32_on_the_cpu_is_taken(monkeypatch):
    taken = []
    monkeypatch.setattr(module, "onednn_pays", lambda: True)
    monkeypatch.setattr(module, "linear", lambda *args: taken.append(args) or linear(*args))
    layer = torch.nn.Linear(4, 3)
    with OneDNNLinear():
        assert torch.allclose(layer(torch.ones(2, 4)), layer(torch.ones(4)), atol=1e-6)
        layer.double()(torch.ones(2, 4, dtype=torch.float64))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer.float()(torch.ones(2, 4)).dtype == torch.bfloat16
    assert len(taken) == 1


@needs_onednn
def test_it_stays_out_where_it_does_not_pay(monkeypatch):
    monkeypatch.setattr(module, "onednn_pays", lambda: False)
    monkeypatch.setattr(module, "linear", lambda *_: pytest.fail("not to be called"))
    with OneDNNLinear():
        F.linear(torch.ones(2, 4), torch.ones(3, 4))
