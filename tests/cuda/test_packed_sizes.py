"""One length of packed weights has one shape in a process: asked without a GPU."""

from __future__ import annotations

import struct

import pytest
from cuda_library import built_library

from fastinfer.types.packed import HEADER_BYTES

KERNELS = built_library()
ALIGNMENT = 64


def header(**fields):
    """Return a header with 32-bit integers and floats at their places (docs/layouts.md)."""
    places = {
        "n": 16, "k": 20, "x_zero_point": 48, "out_zero_point": 52, "qmin": 56, "qmax": 60,
        "flags": 64, "clamp_min": 72, "clamp_max": 76, "pixels": 80, "run": 84, "total_bytes": 168,
    }  # fmt: skip
    buffer = bytearray(HEADER_BYTES)
    for name, value in fields.items():
        kind = "f" if name.startswith("clamp") else "q" if name == "total_bytes" else "i"
        struct.pack_into(f"<{kind}", buffer, places[name], value)
    return bytes(buffer)


def test_the_same_shape_has_the_same_length():
    sizes = KERNELS.PackedSizes()
    assert sizes.claim(b"a", 4096) == 4096
    assert sizes.claim(b"a", 4096) == 4096


def test_another_shape_of_that_length_gets_the_next_that_is_free():
    sizes = KERNELS.PackedSizes()
    assert [sizes.claim(shape, 4096) for shape in (b"a", b"b", b"c", b"b")] == [
        4096, 4096 + ALIGNMENT, 4096 + 2 * ALIGNMENT, 4096 + ALIGNMENT
    ]  # fmt: skip
    assert sizes.claim(b"d", 4096 + ALIGNMENT) == 4096 + 3 * ALIGNMENT


def test_what_comes_from_elsewhere_is_refused_where_its_length_is_anothers():
    sizes = KERNELS.PackedSizes()
    sizes.claim(b"a", 4096)
    assert sizes.adopt(b"a", 4096)
    assert not sizes.adopt(b"b", 4096)
    assert sizes.adopt(b"b", 4160) and not sizes.adopt(b"c", 4160)
    assert sizes.claim(b"b", 4096) == 4160  # as those that came
    assert sizes.adopt(b"a", 8192)  # padded otherwise in another process
    assert sizes.claim(b"a", 4096) == 4096


@pytest.mark.parametrize("field", ["n", "k", "pixels", "run"])
def test_what_the_host_reads_is_of_the_shape(field):
    assert KERNELS.shape_key(header(**{field: 1})) != KERNELS.shape_key(header(**{field: 2}))


@pytest.mark.parametrize(
    "field", ["x_zero_point", "out_zero_point", "qmin", "qmax", "clamp_min", "clamp_max",
              "total_bytes"],
)  # fmt: skip
def test_what_kernels_read_themselves_is_not(field):
    assert KERNELS.shape_key(header(**{field: 1})) == KERNELS.shape_key(header(**{field: 2}))


def test_flags_count_but_for_those_of_values():
    plain = KERNELS.shape_key(header())
    assert [KERNELS.shape_key(header(flags=1 << bit)) != plain for bit in range(6)] == [
        True, True, True, True, False, False
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no header"):
        KERNELS.shape_key(b"FIPK")
