"""Programs of transformers: linear layers that quantize on the fly, attention with masks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fastinfer.testing.case import Case, generator, random_uint8
from fastinfer.testing.cases import OUTPUTS, pack, pack_dynamic, random_weight
from fastinfer.types.float_functions import FLOAT_BINARY, FLOAT_UNARY
from fastinfer.types.region import Region, Step

_ADD = (FLOAT_BINARY.index("add"), -1, (), 0.0, False)


class _Program:
    """Steps one after the other: their values are numbered as they come."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.steps: list[Step] = []

    def add(self, kind: str, reads: tuple[int, ...], *arguments: Any) -> int:
        """Append a step and return its value."""
        out = self.inputs + len(self.steps)
        self.steps.append(Step(kind, out, reads, arguments))
        return out

    def text(self, *outputs: int) -> str:
        """Return the program with these results."""
        count = self.inputs + len(self.steps)
        return Region(self.inputs, count, outputs, tuple(self.steps)).to_text()


def _mask(kind: str, n: int, tokens: int, g: torch.Generator) -> Tensor | None:
    """Return what is added to scores [N, heads, T, T]; the last sample's hides every key."""
    if kind == "none":
        return None
    shape = {"padding": (n, 1, 1, tokens), "scores": (1, 2, tokens, tokens)}[kind]
    mask = torch.where(torch.rand(shape, generator=g) < 0.3, -math.inf, 0.0)
    mask[-1, ..., : tokens if kind == "padding" else 0] = -math.inf
    return mask


def _layer_case(n: int, tokens: int, width: int, mask_kind: str) -> Case:
    """Return an encoder layer of two heads: queries, keys and values read one value."""
    label = f"encoder_{n}x{tokens}x{width}_{mask_kind}"
    causal, inner = mask_kind == "causal", 2 * width + 3
    kind = "none" if causal else mask_kind
    p = _Program(1 if kind == "none" else 2)
    heads = []
    for i in range(3):
        y = p.add("int8_linear_dynamic", (0,), i, width)
        y = p.add("reshape", (y,), (-2, -3, 2, width // 2))
        heads.append(p.add("permute", (y,), (0, 2, 1, 3)))
    reads = (*heads, 1) if p.inputs == 2 else tuple(heads)
    y = p.add("float_attention", reads, 0.3, causal, -1, ())
    y = p.add("reshape", (p.add("permute", (y,), (0, 2, 1, 3)),), (-2, -3, width))
    y = p.add("int8_linear_dynamic", (y,), 3, width)
    normed = p.add("float_layer_norm", (p.add("float_binary", (y, 0), *_ADD),), 2, -1, -1, 1e-5)
    y = p.add("int8_linear_dynamic", (normed,), 4, inner)
    y = p.add("float_unary", (y,), FLOAT_UNARY.index("gelu"), 0.0, 0.0)
    last = p.add("float_binary", (p.add("int8_linear_dynamic", (y,), 5, width), normed), *_ADD)

    def build() -> tuple[Any, ...]:
        g = generator(label)
        sizes = [(width, width)] * 4 + [(inner, width), (width, inner)]
        packed = [pack_dynamic("linear", random_weight(g, "normal", *s), g, 1) for s in sizes]
        x, mask = torch.randn(n, tokens, width, generator=g), _mask(kind, n, tokens, g)
        return [x] if mask is None else [x, mask], packed, p.text(heads[0], last)

    return Case("int8_region", label, build)


def _rows_case(shape: tuple[int, ...], n: int) -> Case:
    """Return linear layers of one input of any rank, one of them of a function of it."""
    label = f"rows_{'x'.join(map(str, shape))}_{n}"
    p = _Program(1)
    first = p.add("int8_linear_dynamic", (0,), 0, n)
    second = p.add("int8_linear_dynamic", (0,), 1, 2 * n)
    y = p.add("float_unary", (first,), FLOAT_UNARY.index("gelu_tanh"), 0.0, 0.0)
    third = p.add("int8_linear_dynamic", (y,), 2, 5)

    def build() -> tuple[Any, ...]:
        g = generator(label)
        sizes = ((n, shape[-1]), (2 * n, shape[-1]), (5, n))
        packed = [pack_dynamic("linear", random_weight(g, "normal", *s), g, 1) for s in sizes]
        return [torch.randn(shape, generator=g)], packed, p.text(second, third)

    return Case("int8_region", label, build)


def _packed_order_case(n: int, tokens: int) -> Case:
    """Return what is done to each element of an attention, whose heads lie side by side."""
    label = f"order_{n}x{tokens}"
    p = _Program(1)
    y = p.add("permute", (p.add("reshape", (0,), (-2, -3, 3, 8)),), (0, 2, 1, 3))
    y = p.add("float_attention", (y, y, y), 0.5, False, 2, (n, 1, tokens, tokens))
    y = p.add("float_unary", (y,), FLOAT_UNARY.index("tanh"), 0.0, 0.0)
    codes = p.add("quantize", (y,), 0.01, 120)
    looked = p.add("int8_lookup", (codes,), 1)
    back = p.add("dequantize", (looked,), 0.02, 90)
    rows = p.add("reshape", (p.add("permute", (looked,), (0, 2, 1, 3)),), (-2, -3, 24))
    linear = p.add("int8_linear", (rows,), 0, 16, False)

    def build() -> tuple[Any, ...]:
        g = generator(label)
        weight = random_weight(g, "normal", 16, 24)
        bias = torch.randn(n, 1, tokens, tokens, generator=g)
        packed = [pack("linear", weight, g, OUTPUTS[0], 1, 117), random_uint8(g, 256), bias]
        return [torch.randn(n, tokens, 24, generator=g)], packed, p.text(linear, back)

    return Case("int8_region", label, build)


def text_programs() -> Iterator[Case]:
    """Yield programs of transformers."""
    for n, tokens, width in ((1, 5, 12), (2, 33, 32), (3, 70, 64), (0, 4, 8)):
        for mask in ("none", "padding", "scores", "causal"):
            if n > 0 or mask == "none":
                yield _layer_case(n, tokens, width, mask)
    for shape in ((17,), (3, 16), (2, 5, 33), (2, 3, 4, 19), (1, 2, 3, 2, 64), (0, 8)):
        yield _rows_case(shape, 21)
    yield _rows_case((200, 96), 130)
    for n, tokens in ((1, 7), (2, 30)):
        yield _packed_order_case(n, tokens)
