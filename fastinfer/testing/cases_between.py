"""Inputs for the ops between layers: addition, multiplication, concatenation and pooling.

Sizes lie around the vector widths (32 and 64 bytes) and around what a kernel does at once: 4096
bytes of a row, 256 pixels of a sum, a cache line of channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fastinfer.testing.case import Case, generator, random_uint8

Shape = tuple[int, ...]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Map:
    """Multipliers of x and y, zero points of x, y and the result, and its bounds."""

    name: str
    multipliers: tuple[float, float] = (0.7231, 0.3517)
    zero_points: tuple[int, int, int] = (117, 31, 101)
    bounds: Pair = (0, 255)


PLAIN = Map("plain")
MAPS = (
    PLAIN,
    Map("relu6", zero_points=(0, 255, 10), bounds=(10, 201)),
    Map("ties", (0.5, 0.25), (128, 64, 0)),
    Map("huge", (1e7, -1e9), bounds=(3, 199)),
    Map("negative", (-1e30, 1.0), (0, 0, 255)),
    Map("infinite", (1e300, -1e300)),  # float32 infinities: 0 times them and their sum are NaN
    Map("tiny", (1e-42, 0.0)),
    Map("point", bounds=(77, 77)),
)


def image(g: torch.Generator, shape: Shape, layout: str) -> Tensor:
    """Return uint8 in NHWC or NCHW memory, or strided so that it is neither."""
    if layout == "strided":
        return random_uint8(g, *shape[:-1], 2 * shape[-1])[..., ::2]
    x = random_uint8(g, *shape)
    return x.contiguous(memory_format=torch.channels_last) if layout == "nhwc" else x


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape))


def add_case(x: Tensor, y: Tensor, label: str, m: Map = PLAIN, table: bool = False) -> Case:
    """Return an int8_add case."""
    label = f"{label}_{m.name}" + ("_table" if table else "")
    entries = random_uint8(generator(label), 256) if table else None
    (mx, my), (zx, zy, zo) = m.multipliers, m.zero_points
    return Case("int8_add", label, lambda: (x, y, mx, zx, my, zy, zo, *m.bounds, entries))


def mul_case(x: Tensor, y: Tensor, label: str, m: Map = PLAIN) -> Case:
    """Return an int8_mul case; the product of both multipliers is small enough not to saturate."""
    multiplier = m.multipliers[0] * 0.011
    args = (x, y, multiplier, *m.zero_points, *m.bounds)
    return Case("int8_mul", f"{label}_{m.name}", lambda: args)


def pair_cases(
    shape: Shape,
    layouts: tuple[str, str] = ("nchw", "nchw"),
    y_shape: Shape | None = None,
    m: Map = PLAIN,
) -> Iterator[Case]:
    """Yield int8_add and int8_mul of one pair of tensors; y_shape: x's unless given."""
    label = f"{_text(shape)}_{'_'.join(layouts)}" + (f"_y{_text(y_shape)}" if y_shape else "")
    g = generator(label)
    x, y = image(g, shape, layouts[0]), image(g, y_shape or shape, layouts[1])
    yield add_case(x, y, label, m)
    yield mul_case(x, y, label, m)


def _pointwise_cases() -> Iterator[Case]:
    for n in (0, 1, 31, 32, 33, 63, 64, 65, 127, 4095, 4096, 4161):
        yield from pair_cases((n,))
    yield from pair_cases((2, 3, 70))
    for m in MAPS[1:]:
        yield from pair_cases((3, 331), m=m)
        yield from pair_cases((1, 24, 5, 7), ("nhwc", "nhwc"), (1, 24, 1, 1), m)
    for layouts in (("nhwc", "nhwc"), ("nhwc", "nchw"), ("nchw", "nhwc"), ("strided", "strided")):
        yield from pair_cases((2, 5, 7, 9), layouts)
        yield from pair_cases((2, 5, 7, 9), layouts, (2, 5, 1, 1))
    # One channel, less than a vector, around one, and more than are done at once.
    for c in (1, 3, 8, 16, 24, 31, 32, 33, 63, 64, 65, 120, 4100):
        yield from pair_cases((2, c, 3, 5), ("nhwc", "nchw"), (2, c, 1, 1))
    yield from pair_cases((3, 2, 11, 70), y_shape=(3, 2, 1, 1))
    yield from pair_cases((2, 70, 1, 1), ("nhwc", "nhwc"))
    yield from pair_cases((0, 4, 3, 3), y_shape=(0, 4, 1, 1))
    yield from pair_cases((2, 72, 40, 39), ("nhwc", "nhwc"), (2, 72, 1, 1))  # split over threads
    yield from pair_cases((2, 30, 41, 37), ("nhwc", "nhwc"))
    # Every byte of x with every byte of y.
    codes = torch.arange(256, dtype=torch.uint8)
    x, y = codes[:, None].repeat(1, 256), codes.repeat(256, 1)
    for m in MAPS:
        yield add_case(x, y, "all", m)
        yield mul_case(x, y, "all", m)
    for shape, layout in (((4099,), "nchw"), ((2, 5, 7, 9), "nhwc")):
        t = image(generator("table"), shape, layout)
        yield add_case(t, t, _text(shape), table=True)
    yield add_case(x, y, "all", MAPS[1], table=True)


def cat_case(label: str, xs: list[Tensor], dim: int, maps: list[tuple[float, int]]) -> Case:
    """Return an int8_cat case; maps: multiplier and zero point of each part, cyclic."""
    chosen = [maps[i % len(maps)] for i in range(len(xs))]
    multipliers, zero_points = [m for m, _ in chosen], [z for _, z in chosen]
    return Case("int8_cat", label, lambda: (xs, dim, multipliers, zero_points, 101))


_COPY, _SCALED, _HUGE = (1.0, 101), (0.631, 17), (1e9, 128)


def _cat_cases() -> Iterator[Case]:
    def parts(label: str, shapes: list[Shape], layout: str) -> list[Tensor]:
        g = generator(label)
        return [image(g, shape, layout) for shape in shapes]

    for widths in ((1,), (3, 5), (24, 1, 64), (65, 63), (32, 32, 32), (0, 33), (100, 4100)):
        for maps in ([_COPY], [_SCALED], [_COPY, _SCALED, _HUGE]):
            label = f"{_text(widths)}_{len(maps)}_{maps[0][1]}"
            nhwc = parts(label, [(2, c, 3, 5) for c in widths], "nhwc")
            yield cat_case(f"nhwc_{label}", nhwc, 1, maps)
            rows = parts(label, [(3, c) for c in widths], "nchw")
            yield cat_case(f"rows_{label}", rows, 1, maps)
    for dim in range(4):
        shapes: list[Shape] = []
        for size in (2, 1, 3):
            shape = [2, 5, 4, 3]
            shape[dim] = size
            shapes.append(tuple(shape))
        for layout in ("nhwc", "nchw", "strided"):
            label = f"dim{dim}_{layout}"
            yield cat_case(label, parts(label, shapes, layout), dim, [_SCALED, _COPY, _HUGE])
    mixed = [*parts("a", [(2, 5, 4, 3)], "nhwc"), *parts("b", [(2, 7, 4, 3)], "nchw")]
    yield cat_case("mixed", mixed, 1, [_COPY, _SCALED])
    yield cat_case("mixed_nchw", mixed[::-1], 1, [_COPY, _SCALED])
    yield cat_case("empty", parts("empty", [(0, 4, 3, 3), (0, 5, 3, 3)], "nchw"), 1, [_SCALED])
    yield cat_case("vector", parts("vector", [(70,), (1,), (5000,)], "nchw"), 0, [_SCALED, _COPY])
    large = parts("large", [(1, c, 30, 29) for c in (40, 33, 7)], "nhwc")
    yield cat_case("large", large, 1, [_SCALED, _COPY])
    one_row = parts("one_row", [(1, 3, 90, 71), (1, 4, 90, 71)], "nchw")
    yield cat_case("large_one_row", one_row, 1, [_SCALED])


@dataclass(frozen=True)
class Pool:
    """Windows over an image."""

    n: int
    c: int
    size: Pair
    kernel: Pair = (3, 3)
    stride: Pair = (2, 2)
    padding: Pair = (1, 1)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False

    def __str__(self) -> str:
        pairs = (self.size, self.kernel, self.stride, self.padding, self.dilation)
        sizes = "_".join(f"{a}.{b}" for a, b in pairs)
        return f"{self.n}x{self.c}_{sizes}" + ("_ceil" if self.ceil_mode else "")


POOLS = (
    *(Pool(2, c, (9, 8)) for c in (1, 3, 16, 24, 31, 32, 33, 63, 64, 65, 96, 130)),
    *(Pool(1, c, (6, 7), stride=(1, 1)) for c in (1, 5, 24, 64, 100)),
    *(Pool(1, c, (7, 9), (2, 2), padding=(0, 0)) for c in (8, 40, 64)),
    *(Pool(1, c, (7, 9), (2, 2), padding=(0, 0), ceil_mode=True) for c in (8, 40)),
    Pool(1, 20, (8, 6), ceil_mode=True),
    Pool(1, 20, (2, 2), (3, 3), padding=(0, 0), ceil_mode=True),  # a window larger than the image
    Pool(1, 20, (7, 10), stride=(3, 2), ceil_mode=True),
    Pool(2, 12, (5, 6), (2, 3), (3, 4), (1, 0), ceil_mode=True),
    Pool(1, 66, (11, 13), (5, 4), (1, 2), (2, 2)),
    Pool(1, 10, (1, 1)),
    Pool(1, 70, (1, 1), (1, 1), (1, 1), (0, 0)),
    Pool(1, 5, (2, 1), (2, 2), (1, 1)),
    Pool(1, 7, (4, 9), (1, 5), (1, 3), (0, 2)),
    Pool(2, 64, (3, 40), (3, 1), (2, 1), (0, 0)),
    Pool(0, 4, (5, 5)),
    Pool(2, 48, (28, 27)),  # split over threads
)
_DILATED = (
    Pool(1, 17, (9, 11), (3, 2), (2, 1), (1, 1), (2, 3)),
    Pool(1, 64, (12, 12), (3, 3), (1, 1), (1, 1), (3, 2), ceil_mode=True),
    Pool(1, 33, (8, 8), (2, 2), (1, 1), (1, 1), (4, 5)),
)
#: (shape, output_size): global, uneven, more windows than pixels, none, long sums.
ADAPTIVE = (
    *(((1, c, 7, 7), (1, 1)) for c in (1, 16, 24, 31, 32, 33, 63, 64, 65, 130, 576)),
    *(((2, c, 9, 8), (4, 3)) for c in (3, 24, 32, 70)),
    ((1, 40, 5, 4), (7, 9)),
    ((2, 3, 1, 1), (2, 3)),
    ((1, 66, 7, 7), (7, 7)),
    ((1, 5, 12, 12), (6, 4)),
    ((1, 5, 12, 12), (5, 1)),
    ((1, 70, 3, 300), (1, 1)),
    ((1, 20, 300, 3), (2, 1)),
    ((1, 33, 16, 16), (1, 1)),
    ((1, 4, 3, 3), (0, 2)),
    ((0, 4, 3, 3), (2, 2)),
    ((1, 320, 30, 30), (1, 1)),  # split over threads, by channels
)


def max_case(pool: Pool, layout: str = "nhwc") -> Case:
    """Return an int8_max_pool2d case."""
    label = f"{pool}_{layout}"
    x = image(generator(label), (pool.n, pool.c, *pool.size), layout)
    geometry = [list(p) for p in (pool.kernel, pool.stride, pool.padding, pool.dilation)]
    return Case("int8_max_pool2d", label, lambda: (x, *geometry, pool.ceil_mode))


def avg_case(pool: Pool, include_pad: bool, layout: str = "nhwc", m: Map = PLAIN) -> Case:
    """Return an int8_avg_pool2d case."""
    label = f"{pool}_{include_pad}_{layout}_{m.name}"
    x = image(generator(label), (pool.n, pool.c, *pool.size), layout)
    geometry = [list(p) for p in (pool.kernel, pool.stride, pool.padding)]
    multiplier, (zx, _, zo) = m.multipliers[0], m.zero_points
    args = (x, *geometry, pool.ceil_mode, include_pad, multiplier, zx, zo, *m.bounds)
    return Case("int8_avg_pool2d", label, lambda: args)


def adaptive_case(x: Tensor, size: Pair, label: str, m: Map = PLAIN) -> Case:
    """Return an int8_adaptive_avg_pool2d case."""
    multiplier, (zx, _, zo) = m.multipliers[0], m.zero_points
    args = (x, list(size), multiplier, zx, zo, *m.bounds)
    return Case("int8_adaptive_avg_pool2d", f"{label}_{size[0]}.{size[1]}_{m.name}", lambda: args)


def _pool_cases() -> Iterator[Case]:
    for pool in (*POOLS, *_DILATED):
        yield max_case(pool)
    for pool in POOLS:
        for include_pad in (False, True):
            yield avg_case(pool, include_pad)
    for layout in ("nchw", "strided"):
        yield max_case(POOLS[2], layout)
        yield avg_case(POOLS[3], True, layout)
    for m in MAPS[1:]:
        yield avg_case(POOLS[3], False, m=m)
        yield adaptive_case(image(generator(m.name), (1, 40, 4, 5), "nhwc"), (1, 2), "map", m)
    for shape, size in ADAPTIVE:
        label = _text(shape)
        yield adaptive_case(image(generator(label), shape, "nhwc"), size, label)
    yield adaptive_case(image(generator("a"), (2, 40, 5, 6), "nchw"), (2, 3), "nchw")
    yield adaptive_case(image(generator("b"), (2, 40, 5, 6), "strided"), (2, 3), "strided")
    for value in (0, 255):
        x = torch.full((1, 40, 40, 40), value, dtype=torch.uint8)
        yield adaptive_case(x, (1, 1), f"all{value}")
    # Part of a larger buffer: what lies behind the image must not be read as its own.
    inside = random_uint8(generator("inside"), 3, 5, 5, 24).permute(0, 3, 1, 2)[1:2]
    yield adaptive_case(inside, (1, 1), "inside")


#: (shape, size): larger, smaller, both, one pixel, the same, channels round the vectors' widths.
UPSAMPLES = (
    *(((2, c, 3, 4), (5, 9)) for c in (1, 3, 16, 31, 32, 33, 63, 64, 65, 100)),
    ((1, 20, 7, 7), (14, 14)),
    ((1, 20, 8, 6), (4, 13)),
    ((1, 40, 1, 1), (6, 5)),
    ((1, 40, 5, 6), (5, 6)),
    ((2, 5, 9, 8), (1, 1)),
    ((1, 7, 2, 300), (3, 7)),
    ((0, 4, 3, 3), (6, 6)),
    ((2, 48, 15, 14), (30, 29)),  # split over threads
)
_FACTORS = ((2.0, 2.0), (1.5, 0.7), (3.3, 1.0))


def upsample_case(
    x: Tensor,
    label: str,
    *,
    size: Pair | None = None,
    like: Tensor | None = None,
    factors: tuple[float, float] | None = None,
    bilinear: bool = True,
    align_corners: bool = False,
) -> Case:
    """Return an int8_upsample2d case; one of size, like and factors is given."""
    to = f"like{_text(tuple(like.shape))}" if like is not None else str(size or factors)
    label = f"{label}_{to}" + ("_bilinear" if bilinear else "") + "_corners" * align_corners
    args = (x, like, list(size or ()), list(factors or ()), bilinear, align_corners)
    return Case("int8_upsample2d", label.replace(" ", ""), lambda: args)


def _upsample_cases() -> Iterator[Case]:
    for shape, size in UPSAMPLES:
        label = _text(shape)
        x = image(generator(label), shape, "nhwc")
        yield upsample_case(x, label, size=size)
        yield upsample_case(x, label, size=size, align_corners=True)
        yield upsample_case(x, label, size=size, bilinear=False)
    shape = (2, 24, 7, 10)
    for layout in ("nhwc", "nchw", "strided"):
        x = image(generator(layout), shape, layout)
        for factors in _FACTORS:
            yield upsample_case(x, layout, factors=factors)
            yield upsample_case(x, layout, factors=factors, bilinear=False)
        yield upsample_case(x, layout, like=torch.zeros(1, 1, 11, 8))
        yield upsample_case(x, layout, like=x, align_corners=True)
    for value in (0, 255):
        x = torch.full((1, 33, 4, 5), value, dtype=torch.uint8)
        yield upsample_case(x, f"all{value}", size=(11, 9))


def between_cases() -> list[Case]:
    """Return every case of the ops between layers."""
    return [*_pointwise_cases(), *_cat_cases(), *_pool_cases(), *_upsample_cases()]
