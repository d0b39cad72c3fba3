"""largest_kept: every pattern keeps what it may, and of that the most."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastinfer.compress.prune import largest_kept
from fastinfer.types.sparsity import NM, Unstructured, named_pattern


def saliency(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("shape", [(40, 192), (33, 64, 3, 3)])
@pytest.mark.parametrize("share", [1, 2])
@pytest.mark.parametrize("n", [0, 1, 16, 64])
def test_groups_keep_n(shape, share, n):
    mask = largest_kept(saliency(*shape), NM(n, 64, share))
    assert mask.shape == shape
    rows = mask.movedim(1, -1).flatten(1)
    assert (rows.view(shape[0], -1, 64).sum(2) == n).all()
    if share == 2:
        assert torch.equal(rows[:16], rows[16:32])


@pytest.mark.parametrize("share", [64, 128, 256])
def test_neighbours_keep_the_same(share):
    """A tile of a GPU's channels; the last tile may be smaller."""
    mask = largest_kept(saliency(share + 40, 64, 3, 1), NM(16, 64, share))
    rows = mask.movedim(1, -1).flatten(1)
    assert (rows.view(share + 40, -1, 64).sum(2) == 16).all()
    assert (rows[:share] == rows[0]).all() and (rows[share:] == rows[share]).all()
    assert not torch.equal(rows[0], rows[share])
    summed = saliency(share + 40, 64, 3, 1)[:share].sum(0)[:, 0, 0]
    assert summed[rows[0, :64]].min() > summed[~rows[0, :64]].max()


def test_a_shorter_group_keeps_as_large_a_share():
    mask = largest_kept(saliency(5, 100), NM(16, 64))
    assert (mask[:, :64].sum(1) == 16).all() and (mask[:, 64:].sum(1) == 9).all()


def test_the_largest_are_kept():
    values = saliency(20, 128)
    for group, kept in zip(
        values.view(-1, 64), largest_kept(values, NM(10, 64)).view(-1, 64), strict=True
    ):
        assert group[kept].min() > group[~kept].max()


def test_channels_that_share_are_added():
    values = torch.zeros(32, 64)
    values[0, 5], values[16, 7], values[0, 9], values[16, 9] = 3.0, 3.0, 2.0, 2.0
    mask = largest_kept(values, NM(1, 64, share=2))
    assert mask[[0, 16], 9].all() and mask[0].sum() == 1


@given(st.integers(1, 70), st.integers(1, 200), st.floats(0, 1))
def test_unstructured_keeps_its_share(n, k, density):
    values = saliency(n, k)
    mask = largest_kept(values, Unstructured(density))
    assert int(mask.sum()) == round(density * n * k)
    if mask.any() and not mask.all():
        assert values[mask].min() >= values[~mask].max()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: largest_kept(torch.ones(4), NM(1)), r"expected \[N, K\] or"),
        (lambda: largest_kept(torch.full((4, 4), torch.nan), NM(1)), "got NaN"),
        (lambda: NM(5, 4), "n=5, m=4"),
        (lambda: NM(1, 4, share=3), r"expected one of \(1, 2, 64, 128, 256\), got 3"),
        (lambda: Unstructured(1.5), "expected 0..1, got 1.5"),
        (lambda: named_pattern("nm32", 0.5), "got 'nm32'"),
        (lambda: named_pattern("nm64", 1.0), "expected 0 <= sparsity < 1"),
        (lambda: named_pattern("2:4", 0.6), "keeps 1.6 of 4 .* nearest sparsity is 0.5"),
    ],
)
def test_bad_input_is_named(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_names():
    assert named_pattern("nm64", 0.75) == NM(16, 64)
    assert named_pattern("nm64x2", 0.875) == NM(8, 64, share=2)
    assert named_pattern("nm64x128", 0.75) == NM(16, 64, share=128)
    assert named_pattern("2:4", 0.5) == NM(2, 4)
    assert named_pattern("unstructured", 0.9).density == pytest.approx(0.1)
