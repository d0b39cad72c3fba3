"""Inputs for int8_region: small programs with every kind of step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from fastinfer.testing.case import Case, generator, random_uint8
from fastinfer.testing.cases import OUTPUTS, pack, random_weight
from fastinfer.types.region import Region, Step

_UINT8, _FLOAT = OUTPUTS[0], next(o for o in OUTPUTS if o.float_output and not o.residual)
_FLOAT_RESIDUAL = next(o for o in OUTPUTS if o.float_output and o.residual)
_RESIDUAL = next(o for o in OUTPUTS if o.residual and not o.float_output)
_ONE, _TWO, _NONE = (1, 1), (2, 2), (0, 0)


def _image_region(width: int) -> Region:
    """Return a small network: two branches that meet, a float and a uint8 result."""
    steps = (
        Step("quantize", 1, (0,), (0.03, 7)),
        Step("int8_conv2d", 2, (1,), (0, width, (3, 3), _TWO, _ONE, _ONE, 1, False)),
        Step("int8_depthwise_conv2d", 3, (2,), (1, (3, 3), _ONE, _ONE, _ONE, False)),
        Step("int8_conv2d", 4, (3, 2), (2, width, _ONE, _ONE, _NONE, _ONE, 1, False)),
        Step("int8_lookup", 5, (4,), (3,)),
        Step("int8_conv2d", 6, (5,), (4, 12, (3, 3), _ONE, (2, 1), (2, 1), 1, False)),
        Step("flatten", 7, (6,)),
        Step("dequantize", 8, (5,), (0.01, 120)),
        Step("int8_conv2d", 9, (5,), (5, 9, _ONE, _TWO, _NONE, _ONE, 1, True)),
        Step("flatten", 10, (9,)),
    )
    return Region(1, 11, (7, 8, 10), steps)


def _between_region() -> Region:
    """Return what stands between layers: pools, squeeze-and-excitation, additions, cats."""
    steps = (
        Step("int8_max_pool2d", 1, (0,), ((3, 3), _TWO, _ONE, _ONE, True)),
        Step("int8_avg_pool2d", 2, (0,), ((3, 2), _TWO, _NONE, True, True, 0.9, 120, 3, 0, 255)),
        Step("int8_avg_pool2d", 3, (1,), ((3, 3), _ONE, _ONE, False, False, 0.9, 120, 3, 0, 255)),
        Step("int8_adaptive_avg_pool2d", 4, (1,), (_ONE, 1.1, 7, 9, 0, 250)),
        Step("int8_mul", 5, (1, 4), (0.01, 7, 9, 30, 30, 255)),
        Step("int8_add", 6, (5, 3), (0.5, 30, 0.7, 3, 11, 0, 200, -1)),
        Step("int8_add", 7, (6, 4), (0.5, 11, 0.7, 9, 20, 0, 255, 0)),
        Step("int8_cat", 8, (6, 1, 7), (1, (1.0, 0.3, 1.2), (11, 7, 20), 11)),
        Step("int8_adaptive_avg_pool2d", 9, (2,), ((3, 4), 0.8, 3, 9, 0, 255)),
        Step("flatten", 10, (9,)),
        Step("int8_cat", 11, (10, 10), (1, (1.0, 2.0), (9, 9), 9)),
        Step("int8_cat", 12, (8, 8), (0, (1.0, 0.5), (11, 12), 11)),
        Step("channel_shuffle", 13, (0,), (2,)),
        Step("slice", 14, (13,), (1, 4)),
        Step("channel_shuffle", 15, (14,), (3,)),
        Step("int8_upsample2d", 16, (2, 0), (_NONE, 0.0, 0.0, True, True)),
        Step("int8_upsample2d", 17, (1,), (_NONE, 1.7, 2.0, True, False)),
        Step("int8_upsample2d", 18, (17,), ((4, 5), 0.0, 0.0, False, False)),
    )
    return Region(1, 19, (8, 11, 12, 13, 15, 16, 18), steps)


def _between_case(n: int, height: int, width: int, channels: int) -> Case:
    label = f"between_{n}x{height}x{width}_c{channels}"

    def build() -> tuple[Any, ...]:
        g = generator(label)
        x = random_uint8(g, n, channels, height, width)
        return [x], [random_uint8(g, 256)], _between_region().to_text()

    return Case("int8_region", label, build)


def _image_case(
    n: int, height: int, width: int, channels: int, nhwc: bool = False, weights: str = "normal"
) -> Case:
    label = f"image_{n}x{height}x{width}_c{channels}" + ("_nhwc" if nhwc else "") + _kind(weights)

    def build() -> tuple[Any, ...]:
        g = generator(label)
        c = channels
        x = torch.randn(n, 3, height, width, generator=g) * 3
        if nhwc:
            x = x.contiguous(memory_format=torch.channels_last)
        shapes = [
            ("conv2d", (c, 3, 3, 3), _UINT8, 1),
            ("depthwise_conv2d", (c, 1, 3, 3), _UINT8, c),
            ("conv2d", (c, c, 1, 1), _RESIDUAL, 1),
            None,
            ("conv2d", (12, c, 3, 3), _UINT8, 1),
            ("conv2d", (9, c, 1, 1), _FLOAT, 1),
        ]
        packed = [
            random_uint8(g, 256)
            if s is None
            else pack(s[0], random_weight(g, weights, *s[1]), g, s[2], s[3], 120)
            for s in shapes
        ]
        return [x], packed, _image_region(channels).to_text()

    return Case("int8_region", label, build)


def _float_case(n: int, size: int, channels: int, nhwc: bool) -> Case:
    """Return a convolution that adds a float image, in NCHW or NHWC memory, and is flattened."""
    label = f"float_{n}x{size}_c{channels}" + ("_nhwc" if nhwc else "")
    steps = (
        Step("quantize", 2, (0,), (0.03, 7)),
        Step("int8_conv2d", 3, (2, 1), (0, channels, _ONE, _ONE, _NONE, _ONE, 1, True)),
        Step("flatten", 4, (1,)),
        Step("flatten", 5, (0,)),
    )

    def build() -> tuple[Any, ...]:
        g = generator(label)
        inputs = [torch.randn(n, channels, size, size, generator=g) * 3 for _ in range(2)]
        if nhwc:
            inputs = [x.contiguous(memory_format=torch.channels_last) for x in inputs]
        weight = random_weight(g, "normal", channels, channels, 1, 1)
        packed = pack("conv2d", weight, g, _FLOAT_RESIDUAL, 1, 7)
        return inputs, [packed], Region(2, 6, (3, 4, 5), steps).to_text()

    return Case("int8_region", label, build)


def _kind(weights: str) -> str:
    return "" if weights == "normal" else f"_{weights}"


def _rows_case(rows: tuple[int, ...], k: int, n: int, weights: str = "normal") -> Case:
    label = f"rows_{'x'.join(map(str, rows))}_k{k}_n{n}{_kind(weights)}"
    steps = (
        Step("int8_linear", 2, (0,), (0, n, False)),
        Step("int8_linear", 3, (2, 1), (1, n, False)),
        Step("int8_linear", 4, (3,), (2, 10, True)),
    )

    def build() -> tuple[Any, ...]:
        g = generator(label)
        packed = [
            pack("linear", random_weight(g, weights, out, width), g, output, 1, 120)
            for out, width, output in ((n, k, _UINT8), (n, n, _RESIDUAL), (10, n, _FLOAT))
        ]
        inputs = [random_uint8(g, *rows, k), random_uint8(g, *rows, n)]
        return inputs, packed, Region(2, 5, (4, 3), steps).to_text()

    return Case("int8_region", label, build)


def _float_rows_case(shape: tuple[int, ...], nhwc: bool = False) -> Case:
    """Return layer norm and softmax between uint8 values, of rows or of an image's channels."""
    label = f"norm_{'x'.join(map(str, shape))}" + ("_nhwc" if nhwc else "")
    dim = 1 if len(shape) == 4 else len(shape) - 1
    steps = (
        Step("dequantize", 2, (0,), (0.03, 120)),
        Step("float_layer_norm", 3, (2,), (dim, 0, 1, 1e-5)),
        Step("float_layer_norm", 4, (1,), (dim, -1, -1, 0.1)),
        Step("float_softmax", 5, (3,), (dim,)),
        Step("quantize", 6, (5,), (0.004, 0)),
        Step("quantize", 7, (4,), (0.02, 128)),
    )

    def build() -> tuple[Any, ...]:
        g = generator(label)
        x = torch.randn(shape, generator=g)
        if nhwc:
            x = x.contiguous(memory_format=torch.channels_last)
        packed = [torch.randn(shape[dim], generator=g) for _ in range(2)]
        program = Region(2, 8, (6, 7, 3), steps).to_text()
        return [random_uint8(g, *shape), x], packed, program

    return Case("int8_region", label, build)


def _mean_case(shape: tuple[int, int, int, int]) -> Case:
    """Return the mean of an image between uint8 and rows, and of a float one that is given."""
    label = f"mean_{'x'.join(map(str, shape))}"
    steps = (
        Step("dequantize", 2, (0,), (0.03, 120)),
        Step("float_global_avg_pool2d", 3, (2,)),
        Step("flatten", 4, (3,)),
        Step("float_global_avg_pool2d", 5, (1,)),
        Step("quantize", 6, (5,), (0.01, 128)),
    )

    def build() -> tuple[Any, ...]:
        g = generator(label)
        inputs = [random_uint8(g, *shape), torch.randn(shape, generator=g)]
        return inputs, [], Region(2, 7, (4, 6), steps).to_text()

    return Case("int8_region", label, build)


def _planes_case(shape: tuple[int, int, int, int], nhwc: bool = False) -> Case:
    """Return enlarged float images, which lie in NCHW memory, as results and as what steps read.

    Values 0 and 1 are a uint8 and a float image, whose size is that of one result.
    """
    label = f"planes_{'x'.join(map(str, shape))}" + "_nhwc" * nhwc
    steps = (
        Step("dequantize", 2, (0,), (0.03, 120)),
        Step("float_upsample2d", 3, (2, 1), (_NONE, 0.0, 0.0, False)),
        Step("float_upsample2d", 4, (3,), ((9, 12), 0.0, 0.0, True)),
        Step("float_upsample2d", 5, (1,), (_NONE, 1.5, 2.0, False)),
        Step("quantize", 6, (5,), (0.02, 100)),
        Step("int8_max_pool2d", 7, (6,), (_TWO, _ONE, _NONE, _ONE, False)),
        Step("flatten", 8, (3,)),
        Step("float_softmax", 9, (4,), (1,)),
        Step("float_global_avg_pool2d", 10, (4,)),
    )

    def build() -> tuple[Any, ...]:
        g = generator(label)
        n, channels, height, width = shape
        x = torch.randn(n, channels, 2 * height + 1, 3 * width, generator=g)
        if nhwc:
            x = x.contiguous(memory_format=torch.channels_last)
        inputs = [random_uint8(g, *shape), x]
        return inputs, [], Region(2, 11, (3, 4, 7, 8, 9, 10), steps).to_text()

    return Case("int8_region", label, build)


def region_cases() -> Iterator[Case]:
    """Yield programs on images and on rows, batches of none to some."""
    for n, height, width, channels in (
        (1, 9, 9, 16), (2, 13, 10, 24), (3, 32, 32, 40), (0, 9, 9, 16), (1, 64, 57, 33),
    ):  # fmt: skip
        yield _image_case(n, height, width, channels)
    yield _image_case(2, 13, 10, 24, nhwc=True)
    for n, height, width, channels in (
        (1, 8, 7, 16),
        (2, 14, 15, 30),
        (0, 8, 8, 4),
        (3, 30, 28, 72),
    ):
        yield _between_case(n, height, width, channels)
    for nhwc in (False, True):
        yield _float_case(2, 6, 20, nhwc)
    for rows, k, n in (((1,), 30, 17), ((5,), 64, 130), ((2, 3), 33, 40), ((0,), 8, 8)):
        yield _rows_case(rows, k, n)
    for weights in ("sparse", "apart"):
        yield _image_case(2, 17, 15, 72, weights=weights)
        yield _rows_case((13,), 640, 40, weights)
    for shape in ((4, 37), (2, 3, 16), (2, 24, 5, 3), (0, 9), (1, 64, 30, 31)):
        yield _float_rows_case(shape)
    yield _float_rows_case((2, 24, 5, 3), nhwc=True)
    for image in ((1, 1000, 13, 13), (3, 40, 5, 7), (0, 8, 3, 3)):
        yield _mean_case(image)
    for image in ((1, 21, 8, 9), (3, 40, 5, 7), (2, 1, 3, 3), (0, 8, 3, 3)):
        yield _planes_case(image)
    yield _planes_case((2, 6, 4, 5), nhwc=True)
