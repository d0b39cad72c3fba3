"""Activations far below 1, as random weights make them, are as accurate in int8 as others."""

from __future__ import annotations

import pytest
import torch
from small_models import sqnr_db
from torch import nn

import fastinfer

FAINT = 1e-15


def faint_net(activation):
    """Return a net without biases whose answer to x is about FAINT * x."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        activation(),
        nn.Conv2d(16, 8, 3, padding=1, bias=False),
        activation(),
        nn.Conv2d(8, 4, 1, bias=False),
    ).eval()
    with torch.no_grad():
        model[0].weight.mul_(FAINT)
    return model


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Identity, nn.SiLU])
def test_faint_signals_keep_their_accuracy(activation):
    model, x = faint_net(activation), torch.randn(4, 3, 12, 12)
    fast = fastinfer.convert(model, x, config=fastinfer.Config(precision="int8"))
    with torch.no_grad():
        wanted, got = model(x).double() / FAINT, fast(x).double() / FAINT
    assert sqnr_db(wanted, got) > 25
    report = fastinfer.report(fast)
    assert {row.precision for row in report.layers} == {"int8"}
    assert report.sqnr_db == pytest.approx(sqnr_db(wanted, got), abs=2)
