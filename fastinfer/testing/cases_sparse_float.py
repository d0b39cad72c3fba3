"""Inputs for sparse float layers: sizes round steps, vectors and blocks; every geometry."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from fastinfer.testing.case import Case, generator
from fastinfer.types.sparse_float import SparseFloatWeight


def sparse_weight(g: torch.Generator, density: float, *shape: int) -> Tensor:
    """Return normal weights of which about `density` are not zero."""
    kept = torch.rand(shape, generator=g) < density
    return torch.randn(shape, generator=g) * kept


def _linear(
    label: str,
    m: int,
    k: int,
    n: int,
    density: float = 0.25,
    *,
    parts: str = "b",
    clamp: tuple[float, float] = (-inf, inf),
    x: Tensor | None = None,
    weight: Tensor | None = None,
) -> Case:
    def build() -> tuple[object, ...]:
        g = generator(label)
        dense = sparse_weight(g, density, n, k) if weight is None else weight
        w = SparseFloatWeight.of(dense)
        rows = torch.randn(m, k, generator=g) if x is None else x
        bias = torch.randn(n, generator=g) if "b" in parts else None
        residual = torch.randn(*rows.shape[:-1], n, generator=g) if "r" in parts else None
        return (rows, w.values, w.places, w.starts, bias, residual, [n, k], *clamp)

    return Case("sparse_float_linear", label, build)


def _conv(
    label: str,
    x: tuple[int, int, int, int],
    n: int,
    kernel: tuple[int, int],
    density: float = 0.25,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    parts: str = "b",
    clamp: tuple[float, float] = (-inf, inf),
    nhwc: bool = False,
) -> Case:
    def build() -> tuple[object, ...]:
        g = generator(label)
        dense = sparse_weight(g, density, n, x[1] // groups, *kernel)
        w = SparseFloatWeight.of(dense, groups)
        image = torch.randn(x, generator=g)
        bias = torch.randn(n, generator=g) if "b" in parts else None
        residual = None
        if "r" in parts:
            arguments = (None, stride, padding, dilation, groups)
            like = torch.nn.functional.conv2d(image, dense, *arguments)
            residual = torch.randn(like.shape, generator=g)
        if nhwc:
            image = image.contiguous(memory_format=torch.channels_last)
        geometry = [list(pair) for pair in (stride, padding, dilation)]
        head = (image, w.values, w.places, w.starts, bias, residual, list(dense.shape))
        return (*head, *geometry, groups, *clamp)

    return Case("sparse_float_conv2d", label, build)


def sparse_float_cases() -> list[Case]:
    """Return every case of sparse_float_linear and sparse_float_conv2d."""
    g = generator("sparse float")
    cases = [_linear(f"rows_{m}", m, 40, 9) for m in (1, 4, 15, 16, 17, 48, 63, 64, 65, 130)]
    cases += [_linear(f"inputs_{k}", 5, k, 9) for k in (1, 2, 127, 128, 129, 256, 300)]
    cases += [_linear(f"outputs_{n}", 3, 20, n) for n in (1, 2, 512, 513)]
    cases += [_linear(f"kept_{d:g}", 18, 150, 7, d) for d in (0.0, 0.02, 1.0)]
    huge = torch.tensor([[3e38, -3e38, 1e-40, 1.0]]).repeat(3, 10)
    cases += [
        _linear("plain", 7, 33, 5, parts=""),
        _linear("residual", 20, 33, 70, parts="br"),
        _linear("residual_only", 20, 33, 5, parts="r"),
        _linear("relu", 20, 33, 5, clamp=(0.0, inf)),
        _linear("relu6_residual", 20, 33, 5, parts="br", clamp=(0.0, 6.0)),
        _linear("vector", 1, 33, 5, x=torch.randn(33, generator=g)),
        _linear("three", 6, 33, 5, x=torch.randn(2, 3, 33, generator=g)),
        _linear("strided", 6, 20, 5, x=torch.randn(6, 40, generator=g)[:, ::2]),
        _linear("none", 0, 20, 5, x=torch.zeros(0, 20)),
        _linear("overflow", 3, 40, 6, 0.5, x=huge, clamp=(-1.0, inf)),
        _linear("tiny", 3, 40, 6, 0.5, x=torch.randn(3, 40, generator=g) * 1e-40),
        _linear("wide", 40, 700, 90),  # split over threads
        _conv("1x1", (1, 20, 7, 9), 11, (1, 1)),
        _conv("1x1_batch", (3, 20, 5, 5), 11, (1, 1), clamp=(0.0, inf)),
        _conv("1x1_stride", (2, 20, 9, 8), 11, (1, 1), stride=(2, 2)),
        _conv("3x3", (2, 15, 13, 20), 6, (3, 3), padding=(1, 1), parts="br", clamp=(0.0, inf)),
        _conv("3x3_valid", (2, 5, 13, 20), 6, (3, 3), parts=""),
        _conv("3x3_stride", (1, 15, 14, 15), 6, (3, 3), stride=(2, 2), padding=(1, 1)),
        _conv("3x3_dilation", (1, 5, 14, 15), 6, (3, 3), dilation=(2, 3), padding=(2, 3)),
        _conv("5x2", (2, 5, 14, 15), 6, (5, 2), stride=(3, 2), padding=(0, 3), dilation=(1, 2)),
        _conv("7x7", (1, 3, 30, 30), 6, (7, 7), stride=(2, 2), padding=(3, 3)),
        _conv("row", (2, 30, 1, 70), 6, (1, 3), padding=(0, 1)),
        _conv("groups", (2, 12, 9, 9), 8, (3, 3), padding=(1, 1), groups=4, parts="br"),
        _conv("one_pixel", (2, 12, 3, 3), 8, (3, 3)),
        _conv("nhwc", (2, 12, 9, 9), 8, (3, 3), padding=(1, 1), nhwc=True),
        _conv("none", (0, 12, 9, 9), 8, (3, 3)),
        _conv("wide", (1, 40, 28, 28), 40, (3, 3), padding=(1, 1)),
    ]
    return cases
