"""Programs for int8_region that join and split channels, which the engine does without copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Generator, Tensor

from fastinfer.testing.case import Case, generator, random_uint8
from fastinfer.testing.cases import OUTPUTS, Output, pack, random_weight
from fastinfer.types.region import Argument, Region, Step

_UINT8 = OUTPUTS[0]
_RESIDUAL = next(o for o in OUTPUTS if o.residual and not o.float_output and not o.table)
_TABLE = next(o for o in OUTPUTS if o.table and not o.residual)
_ONE, _NONE = (1, 1), (0, 0)
ZERO_POINT = 11


class ImageProgram:
    """A region on uint8 images, made step by step; each method returns the value it makes.

    Value 0 is the input, with `channels` channels. All images keep their height and width.
    """

    def __init__(self, channels: int) -> None:
        self.channels = [channels]
        self.steps: list[Step] = []
        self._weights: list[tuple[str, tuple[int, ...], Output, int] | None] = []  # None: a table

    def _add(self, kind: str, width: int, reads: Sequence[int], *arguments: Argument) -> int:
        self.channels.append(width)
        out = len(self.channels) - 1
        self.steps.append(Step(kind, out, tuple(reads), arguments))
        return out

    def _weight(self, op: str, shape: tuple[int, ...], output: Output, groups: int) -> int:
        self._weights.append((op, shape, output, groups))
        return len(self._weights) - 1

    def conv(
        self,
        x: int,
        width: int,
        kernel: int = 1,
        residual: int | None = None,
        table: bool = False,
        groups: int = 1,
        dilation: int = 1,
    ) -> int:
        """Add int8_conv2d to `width` channels, maybe with a residual or an activation table."""
        output = _TABLE if table else _UINT8 if residual is None else _RESIDUAL
        shape = (width, self.channels[x] // groups, kernel, kernel)
        weight = self._weight("conv2d", shape, output, groups)
        reads = (x,) if residual is None else (x, residual)
        pad = dilation * (kernel // 2)
        return self._add(
            "int8_conv2d", width, reads,
            weight, width, (kernel, kernel), _ONE, (pad, pad), (dilation, dilation), groups, False,
        )  # fmt: skip

    def depthwise(self, x: int, kernel: int = 1, table: bool = False) -> int:
        """Add int8_depthwise_conv2d."""
        channels, pad = self.channels[x], kernel // 2
        output = _TABLE if table else _UINT8
        weight = self._weight("depthwise_conv2d", (channels, 1, kernel, kernel), output, channels)
        return self._add(
            "int8_depthwise_conv2d", channels, (x,),
            weight, (kernel, kernel), _ONE, (pad, pad), _ONE, False,
        )  # fmt: skip

    def pool(self, x: int, kind: str) -> int:
        """Add a 3x3 pool: "max" or "avg"."""
        windows = ((3, 3), _ONE, _ONE)
        if kind == "max":
            arguments: tuple[Argument, ...] = (*windows, _ONE, False)
        else:
            arguments = (*windows, False, True, 0.9, 120, ZERO_POINT, 0, 255)
        return self._add(f"int8_{kind}_pool2d", self.channels[x], (x,), *arguments)

    def mean(self, x: int) -> int:
        """Add a global average: 1 x 1 pixels."""
        numbers = (1.1, 7, 9, 0, 250)
        return self._add("int8_adaptive_avg_pool2d", self.channels[x], (x,), _ONE, *numbers)

    def add(self, x: int, y: int) -> int:
        """Add int8_add."""
        numbers = (0.5, 30, 0.7, 3, ZERO_POINT, 0, 200, -1)
        return self._add("int8_add", self.channels[x], (x, y), *numbers)

    def mul(self, x: int, y: int) -> int:
        """Add int8_mul, of the images or of x and one pixel."""
        return self._add("int8_mul", self.channels[x], (x, y), 0.01, 7, 9, ZERO_POINT, 0, 250)

    def lookup(self, x: int) -> int:
        """Add int8_lookup."""
        self._weights.append(None)
        return self._add("int8_lookup", self.channels[x], (x,), len(self._weights) - 1)

    def cat(self, parts: Sequence[int], converted: Sequence[int] = ()) -> int:
        """Add int8_cat of channels; the parts at places `converted` have another map."""
        multipliers = tuple(0.8 if i in converted else 1.0 for i in range(len(parts)))
        zeros = (ZERO_POINT,) * len(parts)
        width = sum(self.channels[x] for x in parts)
        return self._add("int8_cat", width, parts, 1, multipliers, zeros, ZERO_POINT)

    def slice(self, x: int, first: int, last: int) -> int:
        """Add a slice of channels."""
        return self._add("slice", last - first, (x,), first, last)

    def shuffle(self, x: int, groups: int) -> int:
        """Add channel_shuffle."""
        return self._add("channel_shuffle", self.channels[x], (x,), groups)

    def region(self, outputs: Sequence[int]) -> Region:
        """Return the region with these results."""
        return Region(1, len(self.channels), tuple(outputs), tuple(self.steps))

    def arguments(
        self, label: str, outputs: Sequence[int], batch: int, height: int, width: int
    ) -> tuple[list[Tensor], list[Tensor], str]:
        """Return int8_region's arguments: random pixels, and weights for the ISA in force."""
        g = generator(label)
        x = random_uint8(g, batch, self.channels[0], height, width)
        packed = [
            random_uint8(g, 256) if weight is None else _packed(g, *weight)
            for weight in self._weights
        ]
        return [x], packed, self.region(outputs).to_text()


def _packed(g: Generator, op: str, shape: tuple[int, ...], output: Output, groups: int) -> Tensor:
    return pack(op, random_weight(g, "normal", *shape), g, output, groups, 120)


Build = Callable[[int], tuple[ImageProgram, tuple[int, ...]]]


def _inception(c: int) -> tuple[ImageProgram, tuple[int, ...]]:
    """Return branches that end in every kind of step that makes channels of a wider image."""
    p = ImageProgram(c)
    a = p.conv(0, c)
    parts = [p.conv(a, c), p.conv(p.conv(a, c + 1), c, 3), p.conv(p.pool(a, "max"), c, table=True)]
    parts += [p.pool(a, "avg"), p.depthwise(a, 3), p.pool(a, "max"), p.depthwise(a, 3, table=True)]
    return p, (p.conv(p.cat(parts), 16), p.mean(a))


def _dense(c: int) -> tuple[ImageProgram, tuple[int, ...]]:
    """Return a chain of growing cats, as in a DenseNet."""
    p = ImageProgram(c)
    parts = [p.pool(0, "max")]
    for _ in range(4):
        joined = p.cat(parts)
        parts.append(p.conv(p.conv(p.depthwise(joined), 8), c + 1, 3))
    return p, (p.mean(p.cat(parts)),)


def _shuffled(c: int) -> tuple[ImageProgram, tuple[int, ...]]:
    """Return halves split, one kept, joined and shuffled, as in a ShuffleNet."""
    p = ImageProgram(2 * c)
    x = p.cat([p.conv(0, c), p.conv(0, c)])
    for _ in range(2):
        x = p.shuffle(x, 2)
        kept, half = p.slice(x, 0, c), p.slice(x, c, 2 * c)
        x = p.cat([kept, p.conv(p.depthwise(p.conv(half, c), 3), c)])
    return p, (x, p.mean(p.shuffle(x, 2)))


def _nested(c: int) -> tuple[ImageProgram, tuple[int, ...]]:
    """Return a cat of cats, one of them read alone, a part twice, a part of another map."""
    p = ImageProgram(c)
    a, b, d = p.conv(0, c), p.conv(0, 5, 3), p.conv(0, 7)
    inner = p.cat([a, b])
    other = p.cat([d, p.cat([a, d])])
    whole = p.cat([inner, d, other, a, a], converted=[3])
    return p, (p.conv(whole, 9, 3), p.pool(inner, "max"), p.depthwise(other, 3))


def _read_by_others(c: int) -> tuple[ImageProgram, tuple[int, ...]]:
    """Return cats of results, of the input, of what is made or read by steps on dense images."""
    p = ImageProgram(c)
    result, dense, free = p.conv(0, c), p.conv(0, c), p.conv(0, c)
    added = p.conv(free, c, residual=dense)
    joined = p.cat([result, dense, 0, added, free, p.add(dense, free)])
    small = p.cat([free, added])
    return p, (result, joined, p.add(p.conv(joined, c), dense), small)


def _sliced(c: int) -> tuple[ImageProgram, tuple[int, ...]]:
    """Return slices of the input, a part, a cat and a slice, with readers of every kind."""
    p = ImageProgram(2 * c)
    first, last = p.slice(0, 0, c), p.slice(0, c - 1, 2 * c)
    a = p.conv(first, c, 3)
    x = p.cat([a, p.conv(last, c), first])
    part, tail = p.slice(x, 1, 2 * c), p.slice(a, c // 2, c)
    inner = p.slice(part, 1, c)
    joined = p.cat([inner, tail, part])
    outs = [p.conv(part, 9, 3), p.depthwise(inner, 3), p.pool(part, "max"), p.pool(tail, "avg")]
    outs += [p.mean(inner), p.conv(p.slice(joined, 1, 2), 3), p.conv(tail, 4, 3, dilation=2)]
    return p, (*outs, p.slice(x, 0, 3), p.add(p.slice(x, 0, c), a))


def _grouped(c: int) -> tuple[ImageProgram, tuple[int, ...]]:
    """Return grouped convolutions that read and make channels of wider images."""
    p = ImageProgram(4 * c)
    half = p.slice(0, c, 3 * c)
    parts = [p.conv(half, 4 * c, 3, groups=2), p.conv(half, 2 * c, 1, groups=2)]
    x = p.cat(parts)
    return p, (p.mean(x), p.shuffle(p.slice(x, c, 3 * c), 2))


def _residuals(c: int) -> tuple[ImageProgram, tuple[int, ...]]:
    """Return blocks of residuals, as in a ResNet, sums, products and lookups."""
    p = ImageProgram(c)
    x = p.conv(p.conv(0, c), 64, residual=p.conv(0, 64))
    for kernel in (1, 3):
        x = p.conv(p.conv(x, c), 64, kernel, residual=x)
    x = p.mul(x, p.conv(p.mean(x), 64))
    x = p.add(p.conv(x, 64, 3), p.lookup(x))
    return p, (p.pool(p.add(x, x), "max"), p.conv(p.mul(x, p.lookup(x)), c))


def _few(c: int) -> tuple[ImageProgram, tuple[int, ...]]:
    """Return layers that read 3 channels of a wider image, their windows column by column."""
    p = ImageProgram(c + 4)
    own = p.slice(p.conv(0, c + 4), 2, 5)
    return p, (p.conv(p.slice(0, 1, 4), 64, 3), p.conv(own, 64, 3), p.mean(p.conv(own, 64, 7)))


PROGRAMS: dict[str, Build] = {
    "inception": _inception,
    "dense": _dense,
    "shuffled": _shuffled,
    "nested": _nested,
    "read_by_others": _read_by_others,
    "sliced": _sliced,
    "grouped": _grouped,
    "residuals": _residuals,
    "few": _few,
}
#: Channels of a part: below, at and above vectors and panels.
WIDTHS = (3, 17, 32, 63, 65)


def view_case(name: str, channels: int, batch: int, height: int, width: int) -> Case:
    """Return a program of PROGRAMS on an image of a size."""
    label = f"views_{name}_{batch}x{height}x{width}_c{channels}"

    def build() -> tuple[Any, ...]:
        program, outputs = PROGRAMS[name](channels)
        return program.arguments(label, outputs, batch, height, width)

    return Case("int8_region", label, build)


def view_cases() -> Iterator[Case]:
    """Yield every program at every width."""
    for name in PROGRAMS:
        for channels in WIDTHS:
            yield view_case(name, channels, 2, 7, 9)
        yield view_case(name, 16, 1, 14, 14)
        yield view_case(name, 16, 0, 5, 5)


__all__ = ["PROGRAMS", "WIDTHS", "ImageProgram", "view_case", "view_cases"]
