"""The losses' values and gradients, and which one an output gets."""

from __future__ import annotations

import math
from collections import namedtuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from fastinfer.compress.distill.losses import (
    OutputLoss,
    chosen_loss,
    cosine_loss,
    kl_loss,
    mse_loss,
)

EPS = torch.finfo(torch.float64).eps


def logits(rows, classes, seed, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, classes, generator=generator)


@given(st.integers(1, 6), st.integers(2, 9), st.floats(0.5, 8))
def test_kl_and_its_gradient_are_the_formulas(rows, classes, temperature):
    s, t = (logits(rows, classes, seed) for seed in (1, 2))
    s.requires_grad_()
    loss = kl_loss(s, t, temperature)
    p, q = ((x.double() / temperature).softmax(1) for x in (t, s.detach()))
    wanted = temperature**2 * (p * (p.log() - q.log())).sum() / rows
    # float32: T^2 times a sum of terms with p at most 1 and logarithms of some tens.
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-4, abs=1e-4 * temperature**2)
    loss.backward()
    gradient = temperature * (q - p) / rows
    assert torch.allclose(s.grad.double(), gradient, rtol=1e-4, atol=1e-6 * temperature)


def test_kl_gradient_equals_autograd_of_the_definition():
    s, t = logits(5, 7, 3).requires_grad_(), logits(5, 7, 4)
    kl_loss(s, t, 2.0).backward()
    ours, s.grad = s.grad, None
    p = F.softmax(t / 2, 1)
    (4 * (p * (p.log() - F.log_softmax(s / 2, 1))).sum(1).mean()).backward()
    assert torch.allclose(ours, s.grad, rtol=1e-5, atol=1e-6)


def test_kl_over_sequences_is_the_mean_over_rows():
    s, t = logits(12, 5, 1), logits(12, 5, 2)
    assert kl_loss(s.view(3, 4, 5), t.view(3, 4, 5), 1.0) == kl_loss(s, t, 1.0)


def test_the_others():
    t = logits(4, 6, 1)
    assert mse_loss(t, t) == 0 and mse_loss(torch.zeros_like(t), t) == pytest.approx(1)
    assert mse_loss(100 * t + 100 * 0.1 * t, 100 * t) == pytest.approx(0.01, rel=1e-4)
    assert mse_loss(t, torch.zeros_like(t)) == t.square().mean()
    assert cosine_loss(3 * t, t) == pytest.approx(0, abs=1e-6)
    assert cosine_loss(-t, t) == pytest.approx(2, abs=1e-6)
    assert kl_loss(t + 5, t, 3.0) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "value", "loss"),
    [
        ("output", logits(8, 10, 1), "kl"),
        ("output", F.normalize(logits(8, 10, 1), dim=-1), "cosine"),
        ("output", F.softmax(logits(8, 10, 1), 1), "kl"),
        ("output", logits(8, 1, 1), "mse"),
        ("output", logits(8, 3, 1).flatten(), "mse"),
        ("output", logits(8, 12, 1).view(2, 4, 12), "mse"),
        ("output['logits']", logits(8, 12, 1).view(2, 4, 12), "kl"),
        ("output", logits(8, 12, 1).view(2, 4, 3, 4), "mse"),
        # One-hot rows have length 1 and no negative value: probabilities.
        ("output", torch.eye(4), "kl"),
    ],
)
def test_what_an_output_gets(name, value, loss):
    assert chosen_loss(name, value) == loss


def test_probabilities_are_compared_as_such():
    s, t = logits(5, 7, 1), logits(5, 7, 2)
    loss = OutputLoss("distill", "auto", 1.0)
    assert loss(s.softmax(1), t.softmax(1)) == pytest.approx(kl_loss(s, t, 1.0).item(), rel=1e-4)
    assert loss(torch.eye(5, 7), t.softmax(1)).isfinite()


Pair = namedtuple("Pair", "logits embedding")


def test_every_output_counts():
    s = Pair(logits(4, 5, 1), F.normalize(logits(4, 8, 2), dim=1))
    t = Pair(logits(4, 5, 3), F.normalize(logits(4, 8, 4), dim=1))
    loss = OutputLoss("distill", "auto", 2.0)
    got = loss((s, 3), (t, 3))
    assert list(loss.taken.values()) == ["kl", "cosine"]
    wanted = kl_loss(s.logits, t.logits, 2.0) + cosine_loss(s.embedding, t.embedding)
    assert got.item() == pytest.approx(wanted.item())


def test_a_function_gets_both_results():
    loss = OutputLoss("distill", lambda a, b: (a["x"] - b["x"]).sum(), 2.0)
    assert loss({"x": torch.ones(2)}, {"x": torch.zeros(2)}) == 2
    assert "<lambda>" in loss.taken["output"]
    with pytest.raises(TypeError, match=r"loss: expected it to return a scalar tensor, got \[2\]"):
        OutputLoss("distill", lambda a, b: a, 2.0)(torch.ones(2), torch.ones(2))


@pytest.mark.parametrize(
    ("student", "teacher", "text"),
    [
        ((torch.ones(2, 3),), torch.ones(2, 3), r"structure, \(\[2, 3\],\), got \[2, 3\]"),
        ({"a": torch.ones(2)}, {"b": torch.ones(2)}, "pass loss= as a function"),
        ({"a": torch.ones(2, 3)}, {"a": torch.ones(2, 4)}, r"output\['a'\]: expected .* \[2, 3\]"),
        (torch.ones(2, dtype=torch.int64), torch.ones(2, dtype=torch.int64), "floating-point"),
    ],
)
def test_outputs_that_differ_are_named(student, teacher, text):
    with pytest.raises(ValueError, match=text):
        OutputLoss("distill", "auto", 2.0)(student, teacher)


def test_extreme_values_are_finite():
    s = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = kl_loss(s, torch.tensor([[-1e4, 1e4, 0.0]]), 1.0)
    loss.backward()
    assert math.isfinite(loss.item()) and s.grad.isfinite().all()
