"""SparseFloatWeight: there and back, and damaged parts refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastinfer.testing.cases_sparse_float import sparse_weight
from fastinfer.testing.compare import assert_equal
from fastinfer.types.sparse_float import INPUTS, SparseFloatWeight, sparse_float_bytes


@settings(max_examples=60, deadline=None)
@given(
    groups=st.integers(1, 3), outputs=st.integers(1, 4), channels=st.integers(1, 150),
    kernel=st.sampled_from([(), (3,), (1, 1), (2, 3)]), density=st.sampled_from([0.0, 0.1, 1.0]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_there_and_back(groups, outputs, channels, kernel, density, seed):
    g = torch.Generator().manual_seed(seed)
    groups = groups if kernel else 1
    dense = sparse_weight(g, density, groups * outputs, channels, *kernel)
    weight = SparseFloatWeight.of(dense, groups)
    weight.check()
    assert_equal(weight.dense(), dense)
    assert len(weight.values) == int((dense != 0).sum())


def test_order_of_entries():
    dense = torch.zeros(2, INPUTS + 3)
    dense[0, 5], dense[0, INPUTS + 2], dense[1, 4], dense[1, 7] = 1.0, 2.0, 3.0, float("nan")
    weight = SparseFloatWeight.of(dense)
    assert_equal(weight.values, torch.tensor([1.0, 3.0, float("nan"), 2.0]))
    assert weight.places.tolist() == [5, 4, 7, 2]
    assert weight.starts.tolist() == [0, 1, 3, 4, 4]
    assert sparse_float_bytes(dense) == 4 * 5 + 5 * 4
    assert sparse_float_bytes(dense) == sum(
        part.nbytes for part in (weight.values, weight.places, weight.starts)
    )


WEIGHT = SparseFloatWeight.of(sparse_weight(torch.Generator().manual_seed(0), 0.5, 3, 140))
DAMAGED = {
    "dtype": {"values": WEIGHT.values.double()},
    "short": {"places": WEIGHT.places[1:]},
    "rows": {"starts": WEIGHT.starts[1:]},
    "first": {"starts": WEIGHT.starts + 1},
    "order": {"starts": WEIGHT.starts.flip(0)},
    "place": {"places": torch.full_like(WEIGHT.places, INPUTS)},
    "shape": {"shape": (3, 141 + INPUTS)},
}


@pytest.mark.parametrize("label", DAMAGED)
def test_damaged_parts_are_refused(label):
    with pytest.raises(ValueError, match="sparse float weight"):
        replace(WEIGHT, **DAMAGED[label]).check()
