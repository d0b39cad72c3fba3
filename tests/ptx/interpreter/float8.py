"""float8 e4m3, which numpy has not: bits, and float32 that holds its values."""

from __future__ import annotations

import numpy as np

_CODES = np.arange(256)
_POWER = _CODES >> 3 & 15
_FRACTION = (_CODES & 7) / 8.0
_MAGNITUDE = np.where(_POWER == 0, _FRACTION * 2.0**-6, (1 + _FRACTION) * 2.0 ** (_POWER - 7))
_VALUES = np.where(_CODES & 0x80, -_MAGNITUDE, _MAGNITUDE).astype(np.float32)
_VALUES[[0x7F, 0xFF]] = np.nan
#: Of codes 0 to 126, which ascend.
_MIDDLES = ((_VALUES[:126].astype(np.float64) + _VALUES[1:127]) / 2).astype(np.float64)


def from_e4m3(bits: np.ndarray) -> np.ndarray:
    """Return e4m3 bits as float32."""
    return _VALUES[bits]


def e4m3_bits(x: np.ndarray) -> np.ndarray:
    """Return float32 rounded to the nearest e4m3, half to even, at most 448 in magnitude, uint8."""
    magnitude = np.abs(x.astype(np.float64))
    code = np.searchsorted(_MIDDLES, magnitude, side="left")
    is_tie = (code < 126) & (_MIDDLES[np.minimum(code, 125)] == magnitude)
    code = np.where(np.isnan(x), 0x7F, code + (is_tie & (code % 2 == 1)))
    return (code | np.signbit(x) * 0x80).astype(np.uint8)
