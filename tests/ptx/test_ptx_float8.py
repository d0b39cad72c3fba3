"""The interpreter's e4m3 is torch's."""

from __future__ import annotations

import numpy as np
import torch
from interpreter.float8 import e4m3_bits, from_e4m3


def test_every_code_has_torchs_value():
    bits = torch.arange(256, dtype=torch.uint8)
    want = bits.view(torch.float8_e4m3fn).float().numpy()
    np.testing.assert_array_equal(from_e4m3(bits.numpy()), want)


def test_rounding_is_torchs_up_to_the_largest():
    values = torch.randn(20000, generator=torch.Generator().manual_seed(0))
    values = torch.cat([values, values * 100, values * 2.0**-8, torch.tensor([0.0, -0.0])])
    codes = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    middles = (codes[1:] + codes[:-1]) / 2
    values = torch.cat([values.clamp(-448, 448), codes, -codes, middles, -middles])
    want = values.to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    np.testing.assert_array_equal(e4m3_bits(values.numpy()), want)


def test_what_is_larger_saturates():
    values = np.array([449.0, 1e30, np.inf, -np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(e4m3_bits(values) & 0x7F, [0x7E, 0x7E, 0x7E, 0x7E, 0x7F])
    assert e4m3_bits(values)[3] == 0xFE
