"""Inputs for float steps: row lengths round the lanes, extremes, images."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from fastinfer.testing.case import Case, generator

LENGTHS = (1, 2, 15, 16, 17, 31, 32, 33, 64, 100, 768, 1000)


def _norm_case(x: Tensor, label: str, dim: int, parts: str = "wb", eps: float = 1e-5) -> Case:
    g = generator(label)
    n = x.shape[dim]
    weight = torch.randn(n, generator=g) if "w" in parts else None
    bias = torch.randn(n, generator=g) if "b" in parts else None
    return Case("float_layer_norm", f"{label}_{parts}", lambda: (x, weight, bias, eps, dim))


def _softmax_case(x: Tensor, label: str, dim: int) -> Case:
    return Case("float_softmax", label, lambda: (x, dim))


def _tensors() -> Iterator[tuple[str, Tensor, int]]:
    """Yield (label, x, dim)."""
    g = generator("rows")
    for n in LENGTHS:
        yield f"rows_{n}", torch.randn(5, n, generator=g) * 3, 1
    yield "vector", torch.randn(70, generator=g), 0
    yield "three", torch.randn(2, 3, 50, generator=g), 2
    yield "four_last", torch.randn(2, 3, 4, 21, generator=g), 3
    yield "strided", torch.randn(6, 80, generator=g)[:, ::2], 1
    yield "empty", torch.zeros(0, 9), 1
    for c in (1, 16, 24, 65):
        image = torch.randn(2, c, 5, 3, generator=g)
        yield f"image_{c}", image.contiguous(memory_format=torch.channels_last), 1
    yield "image_nchw", torch.randn(2, 40, 5, 3, generator=g), 1
    yield "many", torch.randn(1, 96, 40, 39, generator=g), 1  # split over threads
    yield "equal", torch.full((3, 37), 1.7), 1
    yield "large", torch.randn(3, 37, generator=g) * 1e5 + 1e6, 1
    yield "tiny", torch.randn(3, 37, generator=g) * 1e-30, 1


def _extreme_softmax() -> Iterator[tuple[str, Tensor]]:
    inf = math.inf
    yield "masked", torch.tensor([[0.5, -inf, 2.0, -inf, -1e9] * 7])
    yield "steps", torch.linspace(-120, 0, 400).reshape(2, 200)
    yield "spread", torch.tensor([[88.0, -88.0, 0.0, 1e30, -1e30]])


def _images() -> Iterator[tuple[str, Tensor]]:
    """Yield (label, x): channels round a block, pixels round the lanes."""
    g = generator("means")
    for n, c, h, w in [
        (1, 1, 1, 1), (2, 63, 3, 5), (1, 64, 4, 4), (3, 65, 1, 17), (1, 1000, 13, 13),
        (2, 130, 7, 7), (0, 8, 3, 3), (2, 0, 3, 3),
    ]:  # fmt: skip
        x = torch.randn(n, c, h, w, generator=g) * 3 + 1
        yield f"{n}x{c}x{h}x{w}", x.contiguous(memory_format=torch.channels_last)
    extreme = torch.randn(1, 80, 5, 5, generator=g)
    extreme[0, 1, 2, 3], extreme[0, 2, 0, 0], extreme[0, 3, 4, 4] = math.nan, math.inf, -1e38
    yield "extreme", extreme
    yield "nchw", torch.randn(2, 70, 6, 9, generator=g)


def row_cases() -> list[Case]:
    """Return every case of float_layer_norm and float_softmax."""
    cases = []
    for label, x, dim in _tensors():
        cases.append(_norm_case(x, label, dim))
        cases.append(_softmax_case(x, label, dim))
    x = torch.randn(4, 50, generator=generator("parts"))
    cases += [_norm_case(x, "parts", 1, parts, eps=0.3) for parts in ("", "w", "b")]
    cases += [_softmax_case(x, label, 1) for label, x in _extreme_softmax()]
    return cases


#: (shape of x, size of the result): widths round the lanes, larger and smaller, one pixel.
FLOAT_UPSAMPLES = (
    *(((2, 3, 3, w), (5, 2 * w + 1)) for w in (1, 3, 4, 7, 8, 15, 16, 17, 40)),
    ((1, 20, 7, 7), (14, 14)),
    ((1, 21, 8, 6), (4, 13)),
    ((1, 40, 1, 1), (6, 5)),
    ((1, 4, 5, 6), (5, 6)),
    ((2, 5, 9, 8), (1, 1)),
    ((1, 2, 33, 20), (3, 100)),
    ((3, 7, 16, 20), (61, 79)),  # split over threads
    ((0, 3, 4, 4), (8, 8)),
    ((2, 0, 4, 4), (8, 8)),
)


def float_upsample_case(
    x: Tensor,
    label: str,
    *,
    size: tuple[int, int] | None = None,
    like: Tensor | None = None,
    factors: tuple[float, float] | None = None,
    align_corners: bool = False,
) -> Case:
    """Return a float_upsample2d case; one of size, like and factors is given."""
    to = f"like{list(like.shape)}" if like is not None else str(size or factors)
    label = f"{label}_{to}" + "_corners" * align_corners
    args = (x, like, list(size or ()), list(factors or ()), align_corners)
    return Case("float_upsample2d", label.replace(" ", ""), lambda: args)


def float_upsample_cases() -> list[Case]:
    """Return every case of float_upsample2d."""
    cases = []
    for shape, size in FLOAT_UPSAMPLES:
        label = "x".join(map(str, shape))
        x = torch.randn(shape, generator=generator(label)) * 5
        x = x.contiguous(memory_format=torch.channels_last)
        cases += [
            float_upsample_case(x, label, size=size, align_corners=corners)
            for corners in (False, True)
        ]
    g = generator("upsamples")
    x = torch.randn(2, 6, 7, 10, generator=g)
    extreme = x.clone()
    extreme[0, 1, 2, 3], extreme[0, 2, 0, 0], extreme[1, 3, 4, 4] = math.nan, math.inf, -3e38
    cases.append(float_upsample_case(extreme, "extreme", size=(13, 21)))
    for layout, image in (
        ("nchw", x),
        ("strided", torch.randn(2, 6, 14, 10, generator=g)[:, :, ::2]),
    ):
        for factors in ((2.0, 2.0), (1.5, 0.7), (3.3, 1.0)):
            cases.append(float_upsample_case(image, layout, factors=factors))
        cases.append(float_upsample_case(image, layout, like=torch.zeros(1, 1, 11, 8)))
    return cases


def mean_cases() -> list[Case]:
    """Return every case of float_global_avg_pool2d."""
    return [Case("float_global_avg_pool2d", label, lambda x=x: (x,)) for label, x in _images()]
