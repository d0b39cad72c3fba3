"""Inputs for float steps between int8 layers: their own ops, and programs with every step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fastinfer.testing.case import Case, generator, random_uint8
from fastinfer.types.float_functions import (
    FLOAT_BINARY,
    FLOAT_REDUCE,
    FLOAT_UNARY,
    OWN_REDUCE,
    OWN_UNARY,
    PAD_MODES,
)
from fastinfer.types.region import Region, Step

_INFINITY = math.inf
_END = 2**62


def _extremes(n: int) -> Tensor:
    """Return n numbers, some of them infinite, not a number, tiny, zeros of both signs."""
    x = torch.randn(n, generator=generator(f"extremes{n}")) * 4
    odd = (
        math.nan,
        _INFINITY,
        -_INFINITY,
        0.0,
        -0.0,
        1e-42,
        3e38,
        -3e38,
        90.0,
        -105.0,
        0.625,
        1e-5,
    )
    for i, value in enumerate(odd[:n]):
        x[i * n // len(odd)] = value
    return x


def reduce_cases() -> Iterator[Case]:
    """Yield sums, means and norms: rows and columns round the lanes, images, extremes."""
    shapes: Sequence[tuple[tuple[int, ...], tuple[int, ...]]] = (
        *(((3, n), (1,)) for n in (1, 15, 16, 17, 33, 700)),
        *(((2, n, 40), (1,)) for n in (1, 16, 19, 100)),
        *(((2, 5, n), (1,)) for n in (1, 15, 63, 64, 65, 200)),
        ((2, 24, 5, 7), (1,)),
        ((2, 24, 5, 7), (2, 3)),
        ((2, 70, 5, 7), (3,)),
        ((2, 70, 5, 7), (2,)),
        ((2, 8, 5, 7), (1, 2, 3)),
        ((2, 8, 5, 7), (3, 1)),
        ((1, 64, 40, 39), (1,)),  # split over threads
        ((1, 300, 30, 31), (2, 3)),
        ((2, 3, 4, 5, 6), (2, 3)),
        ((0, 5), (1,)),
        ((4, 9), (0,)),
    )
    for shape, dims in shapes:
        label = f"{'x'.join(map(str, shape))}_{'_'.join(map(str, dims))}"
        x = torch.randn(shape, generator=generator(label)) * 3 + 1
        for function in OWN_REDUCE:
            args = (x, list(dims), function)
            yield Case("float_reduce", f"{function}_{label}", lambda a=args: a)
    odd = _extremes(60)
    for function in OWN_REDUCE:
        args = (odd.reshape(12, 5), [1], function)
        yield Case("float_reduce", f"{function}_extremes", lambda a=args: a)
    strided = torch.randn(4, 40, 9, generator=generator("strided"))[:, ::2]
    yield Case("float_reduce", "strided", lambda: (strided, [1], "sum"))


def group_norm_cases() -> Iterator[Case]:
    """Yield groups of one channel to all of them, widths round the lanes."""
    for shape, groups, parts in (
        ((2, 24, 5, 7), 24, "wb"),
        ((2, 24, 5, 7), 4, "wb"),
        ((2, 24, 5, 7), 1, ""),
        ((1, 64, 9, 9), 8, "w"),
        ((1, 96, 20, 31), 32, "wb"),  # split over threads
        ((2, 40, 3, 1), 8, "b"),
        ((1, 70, 4, 4), 2, "wb"),
        ((3, 5, 1, 1), 5, "wb"),
        ((0, 8, 3, 3), 2, "wb"),
        ((2, 0, 3, 3), 2, ""),
    ):
        label = f"{'x'.join(map(str, shape))}_g{groups}_{parts}"
        g = generator(label)
        x = torch.randn(shape, generator=g) * 3 + 1
        weight, bias = (
            torch.randn(shape[1], generator=g) if part in parts else None for part in "wb"
        )
        args = (x, groups, weight, bias, 1e-5)
        yield Case("float_group_norm", label, lambda a=args: a)
    large = torch.randn(1, 32, 6, 6, generator=generator("large")) * 1e3 + 1e5
    yield Case("float_group_norm", "large", lambda: (large, 4, None, None, 1e-5))


def matmul_cases() -> Iterator[Case]:
    """Yield products: rows round a tile, columns round panels and lanes, some batches."""
    for a, b in (
        *(((rows, 9), (9, 40)) for rows in (1, 5, 6, 7, 25)),
        *(((8, 7), (7, columns)) for columns in (1, 15, 16, 17, 63, 64, 65, 130)),
        *(((6, k), (k, 20)) for k in (0, 1, 300)),
        ((3, 10, 8), (3, 8, 12)),
        ((1, 10, 8), (3, 8, 12)),
        ((3, 10, 8), (1, 8, 12)),
        ((2, 3, 5, 4), (2, 3, 4, 6)),
        ((2, 130, 60), (2, 60, 70)),  # split over threads: rows, then columns
        ((1, 20, 100), (1, 100, 900)),
        ((0, 3, 4), (0, 4, 5)),
        ((2, 0, 4), (2, 4, 5)),
    ):
        label = f"{'x'.join(map(str, a))}_{'x'.join(map(str, b))}"
        g = generator(label)
        args = (torch.randn(a, generator=g), torch.randn(b, generator=g))
        yield Case("float_matmul", label, lambda args=args: args)
    odd = _extremes(36).reshape(6, 6)
    yield Case("float_matmul", "extremes", lambda: (odd, torch.ones(6, 3)))
    turned = torch.randn(2, 9, 8, generator=generator("turned")).transpose(1, 2)
    yield Case("float_matmul", "turned", lambda: (turned, turned.transpose(1, 2)))


def attention_cases() -> Iterator[Case]:
    """Yield attentions: queries round a block, keys round a panel, three and four dimensions."""
    for batch, queries, keys, width, out in (
        ((2,), 1, 1, 4, 4),
        ((2,), 23, 17, 8, 8),
        ((1,), 24, 64, 16, 16),
        ((2, 3), 25, 65, 8, 20),
        ((1, 4), 49, 49, 32, 32),
        ((1, 8), 100, 130, 16, 16),  # split over threads
        ((2, 2), 5, 9, 3, 1),
        ((4, 2), 6, 7, 4, 4),
        ((16, 3), 49, 49, 8, 8),  # many small ones
        ((0, 2), 4, 4, 4, 4),
    ):
        label = f"{'x'.join(map(str, batch))}_{queries}_{keys}_{width}_{out}"
        g = generator(label)
        sizes = ((queries, width), (keys, width), (keys, out))
        q, k, v = (torch.randn(*batch, *s, generator=g) for s in sizes)
        arguments = (q, k, v, width**-0.5)
        yield Case("float_attention", label, lambda a=arguments: a)
        yield Case("float_attention", f"{label}_causal", lambda a=arguments: (*a, None, True))
        for sizes in dict.fromkeys(((1, keys), (queries, 1), (queries, keys))):
            lead = batch if sizes[0] == 1 else [1] * len(batch)
            mask = torch.randn(*lead, *sizes, generator=g)
            mask[mask > 0.8] = -_INFINITY
            mask[..., : queries // 2 if sizes[1] == keys else 0, :] = -_INFINITY
            name = f"{label}_{sizes[0]}x{sizes[1]}"
            yield Case("float_attention", name, lambda a=(*arguments, mask): a)
        if len(batch) == 2 and batch[0] % 2 == 0 and batch[0] > 0:
            repeated = (*arguments, torch.randn(batch[0] // 2, 1, queries, keys, generator=g))
            yield Case("float_attention", f"{label}_repeated", lambda a=repeated: a)
        both = (*arguments, mask, True)
        yield Case("float_attention", f"{label}_both", lambda a=both: a)


def unary_cases() -> Iterator[Case]:
    """Yield every function of our own: counts round the lanes, extremes, images."""
    for function in OWN_UNARY:
        g = generator(function)
        image = torch.rand(2, 20, 30, 31, generator=g) * 9  # split over threads
        nhwc = image.contiguous(memory_format=torch.channels_last)
        for label, x in (("nchw", image), ("nhwc", nhwc), ("strided", image[..., ::3])):
            yield Case("float_unary", f"{function}_{label}", lambda a=(x, function): a)
        empty = (torch.zeros(0, 3), function)
        yield Case("float_unary", f"{function}_empty", lambda a=empty: a)
        for n in (1, 15, 16, 17, 50, 300):
            x = _extremes(n)
            x = x.abs() if function == "sqrt" and n < 300 else x
            yield Case("float_unary", f"{function}_{n}", lambda a=(x, function): a)
    few = torch.linspace(-9, 9, 100).reshape(2, 50)
    yield Case("float_unary", "silu_few", lambda: (few, "silu"))


def _program(label: str, steps: Sequence[Step], outputs: Sequence[int], *inputs: Tensor,
             packed: Sequence[Tensor] = ()) -> Case:  # fmt: skip
    text = Region(len(inputs), len(inputs) + len(steps), tuple(outputs), tuple(steps)).to_text()
    return Case("int8_region", f"island_{label}", lambda: (list(inputs), list(packed), text))


def _element_case(shape: tuple[int, ...], nhwc: bool) -> Case:
    """Return every function of one and of two, of values, of constants and of numbers."""
    label = f"elements_{'x'.join(map(str, shape))}" + "_nhwc" * nhwc
    g = generator(label)
    x = torch.randn(shape, generator=g)
    if nhwc:
        x = x.contiguous(memory_format=torch.channels_last)
    small = torch.randn(shape[0], *[1] * (len(shape) - 1), generator=g)
    channels = (shape[1], *[1] * (len(shape) - 2))
    packed = [torch.randn(channels, generator=g), torch.rand(shape[-1], generator=g) + 0.5]
    steps = [Step("dequantize", 3, (0,), (0.02, 130))]
    for i, name in enumerate(FLOAT_UNARY):
        numbers = {"clamp": (-0.5, _INFINITY), "leaky_relu": (0.1, 0.0)}.get(name, (0.0, 0.0))
        steps.append(Step("float_unary", 4 + i, (3,), (i, *numbers)))
    for i, name in enumerate(FLOAT_BINARY):
        out = 4 + len(steps) - 1
        steps.append(Step("float_binary", out, (3, 1), (i, -1, (), 0.0, False)))
        steps.append(Step("float_binary", out + 1, (1, 2), (i, -1, (), 0.0, False)))
        steps.append(Step("float_binary", out + 2, (2, 1), (i, -1, (), 0.0, False)))
        steps.append(Step("float_binary", out + 3, (1,), (i, 0, channels, 0.0, False)))
        steps.append(Step("float_binary", out + 4, (1,), (i, -1, (), 1.5, name != "prelu")))
        steps.append(Step("float_binary", out + 5, (1,), (i, 1, (shape[-1],), 0.0, True)))
    last = 3 + len(steps) - 1
    steps.append(Step("float_binary", last + 1, (last, last), (2, -1, (), 0.0, False)))
    steps.append(Step("quantize", last + 2, (last + 1,), (0.05, 3)))
    outputs = [*range(4, last + 1), last + 2]
    return _program(label, steps, outputs, random_uint8(g, *shape), x, small, packed=packed)


def _view_case(n: int, channels: int, height: int, width: int) -> Case:
    """Return what moves elements, of floats and of codes, alone and one after the other."""
    label = f"views_{n}x{channels}x{height}x{width}"
    g = generator(label)
    u, x = random_uint8(g, n, channels, height, width), torch.randn(n, channels, height, width)
    c, h = channels, height
    steps: list[Step] = []

    def add(kind: str, reads: tuple[int, ...], *arguments: Any) -> int:
        steps.append(Step(kind, 2 + len(steps), reads, arguments))
        return 1 + len(steps)

    outputs: list[int] = []
    for image in (0, 1):
        rows = add("permute", (image,), (0, 2, 3, 1))
        tokens = add("reshape", (image,), (-2, c, -1))
        turned = add("permute", (tokens,), (0, 2, 1))
        again = add("reshape", (turned, image), (-2, -4, -5, c))
        outputs += [rows, tokens, turned, again, add("permute", (again,), (0, 3, 1, 2))]
        outputs.append(add("reshape", (image,), (-2, 2, c // 2, -4, -5)))
        outputs.append(add("permute", (outputs[-1],), (2, 0, 3, 1, 4)))
        rolled = add("roll", (image,), (1, -2), (2, 3))
        outputs += [rolled, add("roll", (rolled,), (h + 1,), (1,))]
        cut = add("strided_slice", (image,), 2, 1, _END, 2)
        outputs += [cut, add("strided_slice", (cut,), 3, -3, -1, 1)]
        outputs.append(add("strided_slice", (image,), 1, 3, 2, 1))
        outputs.append(add("pad", (image,), (1, 2, -1, 3), 0, 7.0))
        if n > 0:  # torch's answer has another shape for an empty batch
            shuffled = add("pixel_shuffle", (image,), 2)
            outputs += [shuffled, add("pixel_shuffle", (shuffled,), -2)]
        outputs.append(add("join", (rolled, image, rolled), 1))
        outputs.append(add("join", (cut, cut), 3))
        if image == 1:  # only floats are laid out for the caller
            outputs.append(add("contiguous", (image,)))
    for mode in PAD_MODES[1:]:
        outputs.append(add("pad", (1,), (1, 2, 2, 1), PAD_MODES.index(mode), 0.0))
    # Where codes are read as images again.
    codes = add("permute", (add("roll", (0,), (1,), (3,)),), (0, 1, 3, 2))
    outputs.append(add("int8_max_pool2d", (codes,), (2, 2), (1, 1), (0, 0), (1, 1), False))
    outputs.append(add("slice", (codes,), 1, c - 1))
    outputs.append(add("flatten", (codes,)))
    outputs.append(add("dequantize", (codes,), 0.1, 5))
    outputs.append(add("int8_add", (codes, codes), 0.5, 30, 0.7, 3, 11, 0, 200, -1))
    return _program(label, steps, outputs, u, x)


def _sums_case(n: int, channels: int, height: int, width: int, nhwc: bool) -> Case:
    """Return reductions, norms and products of what convolutions give and of views of it."""
    label = f"sums_{n}x{channels}x{height}x{width}" + "_nhwc" * nhwc
    g = generator(label)
    x = torch.randn(n, channels, height, width, generator=g)
    if nhwc:
        x = x.contiguous(memory_format=torch.channels_last)
    packed = [torch.randn(channels, generator=g) for _ in range(2)]
    steps: list[Step] = []

    def add(kind: str, reads: tuple[int, ...], *arguments: Any) -> int:
        steps.append(Step(kind, 1 + len(steps), reads, arguments))
        return len(steps)

    outputs = []
    for function in range(len(FLOAT_REDUCE)):
        for dims in ((1,), (2, 3), (3,), (1, 2, 3)):
            outputs.append(add("float_reduce", (0,), function, dims))
        outputs.append(add("reshape", (outputs[-2],), (-2, -3, -4)))
    outputs.append(add("float_group_norm", (0,), 2, 0, 1, 1e-5))
    outputs.append(add("float_group_norm", (outputs[-1],), channels, -1, -1, 0.1))
    outputs.append(add("float_max_pool2d", (0,), (3, 3), (2, 2), (1, 1), (1, 1), False))
    outputs.append(add("float_max_pool2d", (0,), (2, 3), (1, 2), (0, 1), (2, 1), True))
    tokens = add("reshape", (0,), (-2, -3, -1))
    turned = add("permute", (tokens,), (0, 2, 1))
    alike = add("float_matmul", (tokens, turned))
    scores = add("float_matmul", (turned, tokens))
    outputs += [alike, scores, add("float_matmul", (tokens, scores))]
    # Both operands turned: so is the product, of three dimensions and of four.
    outputs.append(add("float_matmul", (turned, add("permute", (alike,), (0, 2, 1)))))
    back = add("permute", (scores,), (0, 2, 1))
    outputs += [add("float_matmul", (tokens, back)), add("float_softmax", (back,), 2)]
    heads = add("reshape", (tokens,), (-2, 2, channels // 2, -4))
    rows = add("permute", (heads,), (0, 1, 3, 2))
    product = add("float_matmul", (rows, heads))
    square = add("permute", (product,), (0, 1, 3, 2))
    on_its_side = add("float_matmul", (heads, square))
    outputs += [product, on_its_side, add("quantize", (on_its_side,), 0.05, 100)]
    outputs.append(add("float_softmax", (product,), 3))
    outputs.append(add("float_layer_norm", (rows,), 3, -1, -1, 1e-5))
    outputs.append(add("float_attention", (rows, rows, rows), 0.3, False, -1, ()))
    joined = add("reshape", (add("permute", (outputs[-1],), (0, 2, 1, 3)),), (-2, -3, -1))
    outputs.append(add("float_attention", (turned, turned, joined), 0.25, True, -1, ()))
    outputs.append(add("reshape", (add("permute", (joined,), (0, 2, 1)), 0), (-2, -3, -4, -5)))
    outputs.append(add("quantize", (outputs[-1],), 0.02, 120))
    outputs.append(add("contiguous", (outputs[0],)))
    return _program(label, steps, outputs, x, packed=packed)


def island_programs() -> Iterator[Case]:
    """Yield programs with every step of islands."""
    for shape in ((2, 6, 5, 7), (1, 17), (3, 4, 33), (1, 24, 20, 31), (0, 4, 3, 3)):
        yield _element_case(shape, nhwc=False)
    yield _element_case((2, 19, 5, 7), nhwc=True)
    for size in ((1, 4, 4, 6), (2, 8, 6, 10), (1, 24, 20, 18), (0, 4, 4, 6)):
        yield _view_case(*size)
    for size in ((1, 4, 3, 3), (2, 24, 5, 7), (1, 64, 12, 13)):
        for nhwc in (False, True):
            yield _sums_case(*size, nhwc)


def island_op_cases() -> list[Case]:
    """Return every case of the ops that islands are made of."""
    return [
        *reduce_cases(),
        *group_norm_cases(),
        *matmul_cases(),
        *attention_cases(),
        *unary_cases(),
    ]
