"""The packed header in Python and in C++ are one struct; every layout unpacks to what went in."""

from __future__ import annotations

import pytest
import torch

from fastinfer import _C
from fastinfer.ops.int8_prepack import prepack_ref
from fastinfer.testing.cases import generator, random_uint8, random_weight
from fastinfer.testing.cases_sparse import KINDS
from fastinfer.testing.compare import assert_equal
from fastinfer.types import packed as layout
from fastinfer.types.packed import (
    FORMS,
    HEADER_BYTES,
    OPS,
    PackedHeader,
    few_rows_image,
    read_header,
    unpack,
)

SHAPES = {
    "linear": [((20, 33), 1), ((1, 1), 1), ((8, 4), 1), ((33, 130), 1)],
    "conv2d": [((18, 4, 3, 2), 3), ((5, 3, 1, 1), 1), ((16, 64, 3, 3), 1)],
    "depthwise_conv2d": [((70, 1, 3, 3), 70), ((1, 1, 1, 1), 1), ((32, 1, 5, 5), 32)],
}
LAYERS = [(op, shape, groups) for op, many in SHAPES.items() for shape, groups in many]
PARTS = ("weight", "bias", "multiplier", "residual_multiplier", "table", "float_bias")


def arguments(op, shape, groups, *, dynamic=False, table=True, weights="uniform"):
    g = generator(f"{op}{shape}{dynamic}")
    n = shape[0]
    return {
        "op": op,
        "weight": random_weight(g, weights, *shape),
        "bias": torch.randint(-9999, 9999, (n,), generator=g, dtype=torch.int32),
        "multiplier": torch.rand(n, generator=g),
        "residual_multiplier": None if dynamic else torch.rand(n, generator=g),
        "table": random_uint8(g, 256) if table and not dynamic else None,
        "float_bias": torch.randn(n, generator=g) if dynamic else None,
        "groups": groups,
        "x_zero_point": 0 if dynamic else 9,
        "out_zero_point": 0 if dynamic else 200,
        "qmin": 3,
        "qmax": 250,
        "clamp_min": -1.5,
        "clamp_max": float("inf"),
        "float_output": dynamic,
    }


def check_parts(values, parts):
    for name in PARTS:
        if values[name] is None:
            assert getattr(parts, name).numel() == 0, name
        else:
            assert_equal(getattr(parts, name), values[name])
    h = parts.header
    for name in ("x_zero_point", "out_zero_point", "qmin", "qmax", "clamp_min", "clamp_max"):
        assert getattr(h, name) == values[name], name
    assert OPS[h.op] == values["op"] and h.n == values["weight"].shape[0]
    assert h.k == values["weight"][0].numel()


def test_header_is_one_struct():
    assert layout._STRUCT.size == _C.PACKED_HEADER_SIZE <= HEADER_BYTES
    assert layout.VERSION == _C.PACKED_VERSION


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(("op", "shape", "groups"), LAYERS)
def test_round_trip(op, shape, groups, dynamic, isa):
    values = arguments(op, shape, groups, dynamic=dynamic)
    packed = torch.ops.fastinfer.int8_prepack(*values.values())
    header = read_header(packed)
    assert layout.LAYOUTS[header.layout] == isa
    assert header.total_bytes == packed.numel()
    check_parts(values, unpack(packed))


@pytest.mark.parametrize(("op", "shape", "groups"), LAYERS)
def test_canonical_round_trip(op, shape, groups):
    values = arguments(op, shape, groups)
    packed = prepack_ref(*values.values())
    assert layout.LAYOUTS[read_header(packed).layout] == "canonical"
    check_parts(values, unpack(packed))


def test_header_bytes_round_trip():
    values = arguments("conv2d", (18, 4, 3, 2), 3)
    packed = torch.ops.fastinfer.int8_prepack(*values.values())
    header = read_header(packed)
    raw = header.to_bytes()
    assert len(raw) == HEADER_BYTES
    assert raw[: layout._STRUCT.size] == bytes(packed[: layout._STRUCT.size].tolist())
    assert header.weight_shape == (18, 4, 3, 2) and header.n_per_group == 6
    assert isinstance(header, PackedHeader)


def test_bad_headers():
    values = arguments("linear", (20, 33), 1)
    packed = torch.ops.fastinfer.int8_prepack(*values.values())
    with pytest.raises(ValueError, match="1-D uint8 buffer of at least 256 bytes"):
        read_header(packed[:100])
    with pytest.raises(ValueError, match="uint8 buffer"):
        read_header(packed.to(torch.int8))
    with pytest.raises(ValueError, match=f"expected {packed.numel()} bytes, got"):
        read_header(packed[:-64])
    for at in (0, 4):
        broken = packed.clone()
        broken[at] += 1
        with pytest.raises(ValueError, match="expected magic"):
            read_header(broken)


@pytest.mark.parametrize("weights", KINDS)
@pytest.mark.parametrize(
    ("op", "shape", "groups"),
    [("linear", (70, 1000), 1), ("conv2d", (64, 72, 3, 3), 1), ("conv2d", (66, 128, 2, 2), 2)],
)
def test_zeros_round_trip(op, shape, groups, weights, isa):
    values = arguments(op, shape, groups, weights=weights)
    packed = torch.ops.fastinfer.int8_prepack(*values.values())
    check_parts(values, unpack(packed))
    if isa == "avx512vnni":
        assert FORMS[read_header(packed).form] == "sparse"


def test_few_zeros_are_packed_densely(isa):
    """Where a sparse kernel would be the slower one."""
    for share in (0.0, 0.04, 0.1):
        values = arguments("linear", (64, 512), 1)
        g = generator("few zeros")
        values["weight"][values["weight"] == 0] = 1
        values["weight"] *= torch.rand(64, 512, generator=g) >= share
        packed = torch.ops.fastinfer.int8_prepack(*values.values())
        assert FORMS[read_header(packed).form] != "sparse"
        check_parts(values, unpack(packed))


def test_tiles_keep_a_sparse_image_for_few_rows(isa):
    """Of linear layers alone; it holds the same weight and channels."""
    for shape in ((47, 512), (64, 1000)):
        values = arguments("linear", shape, 1, weights="shared few")
        packed = torch.ops.fastinfer.int8_prepack(*values.values())
        image = few_rows_image(packed)
        assert (image is not None) == (isa == "amx")
        assert few_rows_image(packed.clone()) is None or isa == "amx"
        if image is not None:
            assert FORMS[read_header(image).form] == "sparse"
            check_parts(values, unpack(image))
    for op, shape, weights in (
        ("conv2d", (64, 512, 1, 1), "shared few"),
        ("linear", (64, 512), "normal"),
    ):
        values = arguments(op, shape, 1, weights=weights)
        assert few_rows_image(torch.ops.fastinfer.int8_prepack(*values.values())) is None
