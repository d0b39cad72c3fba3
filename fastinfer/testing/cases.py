"""Inputs for every op of the catalog: tile edges, odd sizes, epilogues, extremes.

A case is built under the ISA in force, because packed weights belong to one. Seeds come from the
case's label, so a failing case is the same one again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastinfer.testing.case import Case, generator, random_uint8
from fastinfer.testing.cases_between import between_cases
from fastinfer.testing.zeros import kept_weights

_INF = float("inf")


def random_weight(g: torch.Generator, kind: str, *shape: int) -> Tensor:
    """Return int8 weights: "normal" as in a trained layer, "uniform", "extreme" (+-127), "zero".

    Other kinds are a trained layer's with zeros, see zeros.py.
    """
    if kind == "uniform":
        return torch.randint(-127, 128, shape, generator=g, dtype=torch.int8)
    if kind == "extreme":
        return (torch.randint(0, 2, shape, generator=g) * 254 - 127).to(torch.int8)
    if kind == "zero":
        return torch.zeros(shape, dtype=torch.int8)
    weight = (torch.randn(shape, generator=g) * 32).round().clamp(-127, 127).to(torch.int8)
    return weight if kind == "normal" else weight * kept_weights(g, kind, shape)


@dataclass(frozen=True)
class Output:
    """An epilogue to try: result type, residual, table, clamp."""

    name: str
    float_output: bool = False
    residual: bool = False
    table: bool = False
    qmin: int = 0
    qmax: int = 255
    clamp: tuple[float, float] = (-_INF, _INF)
    out_zero_point: int = 117
    gain: float = 1.0


OUTPUTS = (
    Output("u8"),
    Output("u8_residual", residual=True, out_zero_point=3),
    Output("u8_relu6", qmin=10, qmax=201, out_zero_point=10),
    Output("u8_table", table=True),
    Output("u8_residual_table", table=True, residual=True),
    Output("f32", float_output=True),
    Output("f32_residual_relu", float_output=True, residual=True, clamp=(0.0, _INF)),
)
#: Multipliers so large that results leave int32 unless they are clamped before rounding.
UNBOUNDED = (
    Output("u8_unbounded", gain=1e11, qmin=3, qmax=199),
    Output("u8_unbounded_residual", gain=1e9, residual=True, qmax=254),
)


def pack(
    op: str, weight: Tensor, g: torch.Generator, output: Output, groups: int, x_zero_point: int
) -> Tensor:
    """Return the weight packed for the ISA in force, with a plausible bias and multiplier."""
    n, k = weight.shape[0], weight[0].numel()
    rows = weight.reshape(n, -1).to(torch.int64)
    noise = torch.randint(-5000, 5000, (n,), generator=g)
    bias = (noise - x_zero_point * rows.sum(1)).to(torch.int32)
    spread = 64.0 / (74.0 * 37.0 * max(k, 1) ** 0.5)
    multiplier = (0.5 + torch.rand(n, generator=g)) * spread * output.gain
    residual = torch.rand(n, generator=g) * 0.7 * output.gain if output.residual else None
    table = random_uint8(g, 256) if output.table else None
    return torch.ops.fastinfer.int8_prepack(
        op, weight, bias, multiplier, residual, table, None, groups, x_zero_point,
        output.out_zero_point, output.qmin, output.qmax, *output.clamp, output.float_output,
    )  # fmt: skip


def pack_dynamic(op: str, weight: Tensor, g: torch.Generator, groups: int) -> Tensor:
    """Return the weight packed for dynamic activations."""
    n = weight.shape[0]
    return torch.ops.fastinfer.int8_prepack(
        op, weight, torch.zeros(n, dtype=torch.int32), torch.rand(n, generator=g) * 0.01, None,
        None, torch.randn(n, generator=g), groups, 0, 0, 0, 255, -_INF, _INF, True,
    )  # fmt: skip


def _residual(g: torch.Generator, output: Output, shape: tuple[int, ...]) -> Tensor | None:
    if not output.residual:
        return None
    if output.float_output:
        return torch.randn(shape, generator=g)
    return random_uint8(g, *shape)


def linear_case(
    m: tuple[int, ...], n: int, k: int, output: Output = OUTPUTS[0], weights: str = "normal"
) -> Case:
    """Return an int8_linear case over x [*m, k]."""
    shape = "x".join(map(str, m))
    label = f"{shape}_n{n}_k{k}_{output.name}_{weights}"

    def build() -> tuple[Any, ...]:
        g = generator(label)
        x = random_uint8(g, *m, k)
        packed = pack("linear", random_weight(g, weights, n, k), g, output, 1, 131)
        return x, packed, _residual(g, output, (*m, n)), n, output.float_output

    return Case("int8_linear", label, build)


@dataclass(frozen=True)
class Conv:
    """A convolution's geometry."""

    n: int
    c: int
    size: tuple[int, int]
    out: int
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __str__(self) -> str:
        def pair(p: tuple[int, int]) -> str:
            return f"{p[0]}.{p[1]}"

        return (
            f"{self.n}x{self.c}x{pair(self.size)}_o{self.out}_k{pair(self.kernel)}"
            f"_s{pair(self.stride)}_p{pair(self.padding)}_d{pair(self.dilation)}_g{self.groups}"
        )

    @property
    def geometry(self) -> tuple[list[int], list[int], list[int], list[int]]:
        """Return kernel_size, stride, padding, dilation as the ops take them."""
        return list(self.kernel), list(self.stride), list(self.padding), list(self.dilation)

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        """Return the result's shape."""
        h, w = (
            (self.size[i] + 2 * self.padding[i] - self.dilation[i] * (self.kernel[i] - 1) - 1)
            // self.stride[i]
            + 1
            for i in range(2)
        )
        return self.n, self.out, h, w


def _nhwc(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.contiguous(memory_format=torch.channels_last)


def conv_case(
    conv: Conv,
    output: Output = OUTPUTS[0],
    weights: str = "normal",
    nhwc: bool = True,
    zero_point: int = 7,
) -> Case:
    """Return an int8_conv2d case; zero_point is x's, with which padding is filled."""
    label = f"{conv}_{output.name}_{weights}" + ("" if nhwc else "_nchw")
    if zero_point != 7:
        label += f"_zp{zero_point}"

    def build() -> tuple[Any, ...]:
        g = generator(label)
        x = random_uint8(g, conv.n, conv.c, *conv.size)
        weight = random_weight(g, weights, conv.out, conv.c // conv.groups, *conv.kernel)
        packed = pack("conv2d", weight, g, output, conv.groups, zero_point)
        residual = _residual(g, output, conv.out_shape)
        return (
            _nhwc(x) if nhwc else x, packed, _nhwc(residual) if nhwc else residual, conv.out,
            *conv.geometry, conv.groups, output.float_output,
        )  # fmt: skip

    return Case("int8_conv2d", label, build)


def depthwise_case(conv: Conv, output: Output = OUTPUTS[0], weights: str = "normal") -> Case:
    """Return an int8_depthwise_conv2d case; conv.out and conv.groups are conv.c."""
    label = f"{conv}_{output.name}_{weights}"

    def build() -> tuple[Any, ...]:
        g = generator(label)
        x = _nhwc(random_uint8(g, conv.n, conv.c, *conv.size))
        weight = random_weight(g, weights, conv.c, 1, *conv.kernel)
        packed = pack("depthwise_conv2d", weight, g, output, conv.c, 201)
        residual = _nhwc(_residual(g, output, conv.out_shape))
        return x, packed, residual, *conv.geometry, output.float_output

    return Case("int8_depthwise_conv2d", label, build)


def dynamic_conv_case(conv: Conv) -> Case:
    """Return an int8_conv2d_dynamic case; groups == c == out makes it depthwise."""
    label = f"{conv}"

    def build() -> tuple[Any, ...]:
        g = generator(label)
        x = torch.randn(conv.n, conv.c, *conv.size, generator=g) * 3 + 0.5
        kind = "depthwise_conv2d" if conv.groups == conv.c == conv.out else "conv2d"
        weight = random_weight(g, "normal", conv.out, conv.c // conv.groups, *conv.kernel)
        packed = pack_dynamic(kind, weight, g, conv.groups)
        return x, packed, conv.out, *conv.geometry, conv.groups

    return Case("int8_conv2d_dynamic", label, build)


def _values(label: str, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator(label)) * 2


_SPECIAL = torch.tensor([0.0, -0.0, 1e-42, 3e38, -3e38, _INF, -_INF, float("nan"), 0.5, 1.5, 2.5])


def _quantize_cases() -> Iterator[Case]:
    for shape in [(1,), (31,), (32,), (33,), (5000,), (3, 0), (2, 3, 4), (2, 3, 9, 7)]:
        label = "x".join(map(str, shape))
        x = _values(label, *shape)
        yield Case("quantize", label, lambda x=x: (x, 0.0173, 101))
        q = random_uint8(generator(label), *shape)
        yield Case("dequantize", label, lambda q=q: (q, 0.0173, 101))
        if len(shape) > 1:
            for per_token in (False, True):
                yield Case(
                    "quantize_dynamic", f"{label}_{per_token}", lambda x=x, t=per_token: (x, t)
                )
        yield Case("int8_lookup", label, lambda q=q, t=label: (q, random_uint8(generator(t), 256)))
    for c in (1, 3, 4, 17):
        x = _values(f"planes{c}", 2, c, 11, 13)
        yield Case("quantize", f"planes{c}_nhwc", lambda x=x: (x, 0.02, 128, True))
        nhwc = _nhwc(x)
        yield Case("quantize", f"nhwc{c}", lambda x=nhwc: (x, 0.02, 128))
        q = _nhwc(random_uint8(generator(f"planes{c}"), 2, c, 11, 13))
        yield Case("dequantize", f"nhwc{c}", lambda q=q: (q, 0.02, 128))
    # Strips of 256 pixels, or of 64 with more than 8 channels; 3 channels move 16 pixels at a time.
    for c, h, w in [(3, 1, 15), (3, 16, 16), (3, 27, 19), (8, 24, 33), (9, 8, 8), (9, 5, 13)]:
        x = _values(f"strips{c}x{h}x{w}", 2, c, h, w)
        yield Case("quantize", f"strips{c}x{h}x{w}", lambda x=x: (x, 0.02, 128, True))
    for dtype in (torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        yield Case(
            "quantize", f"{name}_special", lambda d=dtype: (_SPECIAL.to(d).repeat(7), 1.0, 3)
        )
        for c in (3, 17, 64):
            x = _values(f"{name}{c}", 2, c, 11, 13).to(dtype)
            yield Case("quantize", f"{name}_planes{c}", lambda x=x: (x, 0.02, 128, True))
            yield Case("quantize", f"{name}_nhwc{c}", lambda x=x: (_nhwc(x), 0.02, 128))
    yield Case("quantize", "special", lambda: (_SPECIAL.repeat(7), 1.0, 3))
    yield Case("quantize", "strided", lambda: (_values("strided", 40, 9).t()[1:], 0.03, 9))
    for value in (0.0, 2.5, -2.5):
        x = torch.full((2, 40), value)
        yield Case("quantize_dynamic", f"constant{value}", lambda x=x: (x, True))
    yield Case("quantize_dynamic", "special", lambda: (_SPECIAL.repeat(3, 7), True))
    nan = torch.tensor([[1.0, float("nan"), -2.0] * 11])
    yield Case("quantize_dynamic", "nan", lambda: (nan, False))


def _linear_cases() -> Iterator[Case]:
    for output in OUTPUTS:
        yield linear_case((9,), 40, 64, output)
        yield linear_case((2, 3), 33, 30, output)
    for output in UNBOUNDED:
        for n, k in ((16, 20), (40, 64), (24, 1000)):
            yield linear_case((9,), n, k, output)
    for m in (1, 2, 7, 8, 9, 13, 14, 15, 28, 29):
        yield linear_case((m,), 24, 68)
        yield linear_case((m,), 32, 20)
    for n in (1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 100):
        yield linear_case((5,), n, 52)
    for k in (1, 2, 3, 4, 5, 63, 64, 65, 127, 128, 129, 1000):
        yield linear_case((3,), 20, k)
    for weights in ("uniform", "extreme", "zero"):
        yield linear_case((15,), 37, 260, weights=weights)
    for m, k in ((1, 3), (3, 1), (20, 1), (30, 7), (13, 17), (40, 33)):
        yield linear_case((m,), 32, k)
    yield linear_case((16,), 40, 1024)  # rows a multiple of 1 KiB apart are copied
    yield linear_case((0,), 16, 32)
    yield linear_case((300,), 130, 96)
    for per_token in (False, True):
        sizes = (((1, 17), 5), ((9, 64), 40), ((2, 5, 30), 33), ((0, 8), 3), ((70, 96), 90))
        for shape, n in sizes:
            label = "x".join(map(str, shape)) + f"_n{n}_{per_token}"

            def build(
                label: str = label,
                shape: tuple[int, ...] = shape,
                n: int = n,
                per_token: bool = per_token,
            ) -> tuple[Any, ...]:
                g = generator(label)
                packed = pack_dynamic("linear", random_weight(g, "normal", n, shape[-1]), g, 1)
                return torch.randn(shape, generator=g), packed, n, per_token

            yield Case("int8_linear_dynamic", label, build)


_CONVS = (
    Conv(1, 3, (15, 17), 16, stride=(2, 2)),
    Conv(2, 16, (8, 9), 24, kernel=(1, 1), padding=(0, 0)),
    Conv(1, 20, (9, 6), 10, kernel=(1, 1), padding=(0, 0), stride=(2, 2)),
    Conv(1, 64, (7, 7), 32),
    Conv(1, 13, (10, 5), 9, kernel=(5, 3), padding=(2, 0), dilation=(2, 1)),
    Conv(1, 6, (6, 6), 4, kernel=(2, 4), padding=(3, 5), stride=(3, 1), dilation=(1, 2)),
    Conv(1, 3, (33, 31), 64, kernel=(7, 7), padding=(3, 3), stride=(2, 2)),
    Conv(2, 12, (7, 5), 18, groups=3),
    Conv(1, 40, (5, 5), 80, kernel=(1, 1), padding=(0, 0), groups=2),
    Conv(1, 8, (4, 4), 16, groups=8),
    Conv(0, 8, (4, 4), 16),
    Conv(1, 5, (1, 40), 7, kernel=(1, 9), padding=(0, 4)),
    Conv(1, 66, (5, 3), 5, kernel=(1, 1), padding=(1, 2)),
    Conv(2, 2, (9, 40), 12, kernel=(2, 3), padding=(0, 0), stride=(1, 3)),
    Conv(3, 1, (12, 20), 8, kernel=(5, 16), padding=(1, 0), dilation=(2, 1)),
    # Lines long enough to be read in place: in two blocks, by groups, by taps, without padding.
    Conv(1, 64, (60, 61), 40),
    Conv(2, 24, (13, 28), 33, padding=(1, 2), groups=3),
    Conv(1, 8, (9, 30), 20, padding=(2, 3), dilation=(2, 3)),
    Conv(1, 6, (12, 30), 144, kernel=(2, 3), padding=(0, 0), stride=(2, 1)),
    Conv(3, 16, (11, 31), 24, kernel=(1, 1), padding=(0, 0), stride=(2, 2)),
    Conv(1, 12, (7, 12), 17, kernel=(3, 1), padding=(1, 0), stride=(1, 2)),
)


def _conv_cases() -> Iterator[Case]:
    for conv in _CONVS:
        yield conv_case(conv)
        if conv.n and conv.c // conv.groups > 1:
            yield dynamic_conv_case(conv)
    for output in OUTPUTS[1:]:
        yield conv_case(_CONVS[1], output)
        yield conv_case(_CONVS[7], output)
    for output in UNBOUNDED:
        yield conv_case(_CONVS[7], output)
    for weights in ("uniform", "extreme", "zero"):
        yield conv_case(_CONVS[3], weights=weights)
    yield conv_case(_CONVS[0], OUTPUTS[1], nhwc=False)
    yield conv_case(Conv(2, 32, (28, 28), 48), OUTPUTS[1])


def _pack_cases() -> Iterator[Case]:
    for op, shape, groups in (
        ("linear", (20, 33), 1),
        ("conv2d", (18, 4, 3, 2), 3),
        ("depthwise_conv2d", (70, 1, 3, 3), 70),
    ):
        for output in (OUTPUTS[0], OUTPUTS[4]):
            label = f"{op}_{output.name}"

            def build(
                op: str = op,
                shape: tuple[int, ...] = shape,
                groups: int = groups,
                output: Output = output,
                label: str = label,
            ) -> tuple[Any, ...]:
                g = generator(label)
                weight = random_weight(g, "uniform", *shape)
                return (pack(op, weight, g, output, groups, 9),)

            yield Case("int8_unpack", label, build)


def cases() -> list[Case]:
    """Return every case, each with a label of its own."""
    return [
        *_quantize_cases(),
        *_linear_cases(),
        *_conv_cases(),
        *_pack_cases(),
        *between_cases(),
    ]
