"""The launchers that ops are bound to, against the ops' references."""

from __future__ import annotations

import pytest
import torch
from device import DEVICE

from fastinfer.ops.int8_linear import int8_linear_ref, int8_linear_triton
from fastinfer.ops.int8_prepack import prepack_ref
from fastinfer.ops.quantize import quantize_dynamic_ref, quantize_dynamic_triton
from fastinfer.ops.triton_launchers import most_values
from fastinfer.testing.case import generator
from fastinfer.testing.cases import OUTPUTS, UNBOUNDED, linear_case
from fastinfer.testing.compare import assert_equal


@pytest.mark.parametrize("per_token", [True, False])
@pytest.mark.parametrize(
    "shape", [(5, 7), (2, 3, 300), (0, 4), (3, 0), (1, 20000), (4, 5000)], ids=str
)
def test_quantize_dynamic(shape, per_token):
    x = torch.randn(shape, generator=generator(str(shape))) * 3
    if x.numel():
        x.view(-1)[0] = float("nan")
    assert most_values() < 20000  # which the reference serves
    got = quantize_dynamic_triton(x.to(DEVICE), per_token)
    for ours, theirs in zip(got, quantize_dynamic_ref(x, per_token), strict=True):
        assert_equal(ours.cpu(), theirs)


@pytest.mark.parametrize("output", [*OUTPUTS, *UNBOUNDED], ids=str)
def test_int8_linear(output):
    x, packed, residual, *more = linear_case((9,), 24, 40, output).build()
    there = [None if t is None else t.to(DEVICE) for t in (x, packed, residual)]
    for _ in range(2):  # the second finds the layer
        assert_equal(
            int8_linear_triton(*there, *more).cpu(), int8_linear_ref(x, packed, residual, *more)
        )


def test_bad_input_is_named():
    x, packed, *_ = linear_case((9,), 24, 40).build()
    x, packed = x.to(DEVICE), packed.to(DEVICE)
    with pytest.raises(TypeError, match=r"quantize_dynamic: expected x float32, got torch.uint8"):
        quantize_dynamic_triton(x, True)
    with pytest.raises(TypeError, match=r"int8_linear: expected x uint8, got torch.float32"):
        int8_linear_triton(x.float(), packed, None, 24, False)
    with pytest.raises(ValueError, match=r"int8_linear: expected out_features=24 as packed, got 8"):
        int8_linear_triton(x, packed, None, 8, False)
    with pytest.raises(ValueError, match=r"int8_linear: expected x \[\*, 40\]"):
        int8_linear_triton(x[:, :39], packed, None, 24, False)
    with pytest.raises(ValueError, match=r"int8_linear: residual: the weight was packed for no"):
        int8_linear_triton(x, packed, x, 24, False)
    with pytest.raises(ValueError, match=r"float_output=True, but the weight was packed"):
        int8_linear_triton(x, packed, None, 24, True)
    inf = float("inf")
    weight = torch.ones(3, 4, 1, 1, dtype=torch.int8)
    conv = prepack_ref("conv2d", weight, torch.zeros(3, dtype=torch.int32), torch.ones(3), None,
                       None, None, 1, 0, 0, 0, 255, -inf, inf, False)  # fmt: skip
    with pytest.raises(
        ValueError, match=r"int8_linear: packed: expected a weight packed for linear"
    ):
        int8_linear_triton(x, conv.to(DEVICE), None, 3, False)
