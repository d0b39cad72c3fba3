"""A region of a model as data: which ops run on which values, in order.

csrc/engine/program.h reads the text this writes. A region's text is an argument of the op
int8_region, so it is a constant to every tool that looks at a graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import cast

MAGIC = "fastinfer-region"
VERSION = 1

Number = int | float

#: Parameters of every kind of step, in the order of the op's schema: i integer, f real, p pair of
#: integers (height, width), b truth, w index of a buffer, o the same or -1, n list of reals, m list
#: of integers. The kinds stand in the order of StepKind in C++.
PARAMETERS: dict[str, str] = {
    "quantize": "fi",  # scale, zero point
    "dequantize": "fi",
    "int8_conv2d": "wippppib",  # weight, out channels, kernel, ..., groups, float output
    "int8_depthwise_conv2d": "wppppb",
    "int8_linear": "wib",  # weight, out features, float output
    "int8_lookup": "w",  # table
    "int8_max_pool2d": "ppppb",  # kernel, stride, padding, dilation, ceil_mode
    "int8_avg_pool2d": "pppbbfiiii",  # kernel, stride, padding, flags, multiplier, points, clamp
    "int8_adaptive_avg_pool2d": "pfiiii",
    "int8_add": "fifiiiio",  # multipliers and zero points, out, clamp, table or -1
    "int8_mul": "fiiiii",
    "int8_cat": "inmi",  # dim, multipliers, zero points, out zero point
    "flatten": "",
    "slice": "ii",  # first channel, the one after the last
    "channel_shuffle": "i",  # groups
    "int8_upsample2d": "pffbb",  # size or zeros, factors or zeros, bilinear, align_corners
    "float_layer_norm": "ioof",  # dim, weight or -1, bias or -1, eps
    "float_softmax": "i",  # dim
    "float_global_avg_pool2d": "",
    "float_upsample2d": "pffb",  # size or zeros, factors or zeros, align_corners
    "float_unary": "iff",  # function and its numbers
    # function, buffer or -1 and its shape, a number, whether the constant comes first
    "float_binary": "iomfb",
    "float_reduce": "im",  # function, dims
    "float_group_norm": "ioof",  # groups, weight or -1, bias or -1, eps
    "float_matmul": "",
    "float_attention": "fbom",  # scale, is_causal, a mask that is a buffer or -1, its shape
    "float_max_pool2d": "ppppb",  # as int8_max_pool2d
    "permute": "m",  # dims
    "reshape": "m",  # sizes: -1 what is left, -2 - i dimension i of the last value it reads
    "roll": "mm",  # shifts, dims
    "pad": "mif",  # before and behind, the last dim first; mode; what a constant pad holds
    "strided_slice": "iiii",  # dim, start, end, step
    "pixel_shuffle": "i",  # factor; of a negative one the reverse
    "join": "i",  # dim
    "contiguous": "",
    "int8_linear_dynamic": "wi",  # weight, out features
}
KINDS = tuple(PARAMETERS)
LAYERS = ("int8_conv2d", "int8_depthwise_conv2d", "int8_linear", "int8_linear_dynamic")
#: Steps that only a plan has, as StepKind goes on: an NCHW input made NHWC, a slice of a shuffled
#: image, a copy in another layout, a float value as int8_linear_dynamic reads it.
PLAN_KINDS = ("interleave", "shuffled_slice", "copy", "quantize_rows")

Argument = int | float | tuple[int, int] | tuple[float, ...] | tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One op: reads values, makes value `out`; arguments as PARAMETERS[kind] says."""

    kind: str
    out: int
    reads: tuple[int, ...]
    arguments: tuple[Argument, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in PARAMETERS:
            raise ValueError(f"Step: expected kind in {KINDS}, got {self.kind!r}")
        wanted = PARAMETERS[self.kind]
        if len(self.arguments) != len(wanted):
            raise ValueError(
                f"Step: {self.kind}: expected {len(wanted)} arguments ({wanted}), got "
                f"{self.arguments}"
            )


@dataclass(frozen=True)
class Region:
    """Steps in order over `n_values` values; the first n_inputs of them are given."""

    n_inputs: int
    n_values: int
    outputs: tuple[int, ...]
    steps: tuple[Step, ...]

    def to_text(self) -> str:
        """Return the text `from_text` reads, exact for every number."""
        words: list[Number | str] = [MAGIC, VERSION, self.n_inputs, self.n_values]
        words += [len(self.outputs), *self.outputs, len(self.steps)]
        for step in self.steps:
            numbers = list(_flat(step))
            words += [KINDS.index(step.kind), step.out, len(step.reads), *step.reads]
            words += [len(numbers), *numbers]
        return " ".join(w.hex() if isinstance(w, float) else str(w) for w in words)

    @staticmethod
    def from_text(text: str) -> Region:
        """Return the region of a text; ValueError when it is none of this version."""
        words = iter(text.split())
        if next(words, "") != MAGIC or next(words, "") != str(VERSION):
            raise ValueError(
                f"int8_region: program: not one of version {VERSION}; convert the model again"
            )
        try:
            n_inputs, n_values = int(next(words)), int(next(words))
            outputs = _integers(words)
            steps = tuple(_read_step(words) for _ in range(int(next(words))))
        except StopIteration:
            raise ValueError("int8_region: program: it ends early") from None
        return Region(n_inputs, n_values, outputs, steps)


def _flat(step: Step) -> Iterator[Number]:
    """Yield a step's arguments as numbers; lists start with their length."""
    for parameter, argument in zip(PARAMETERS[step.kind], step.arguments, strict=True):
        if isinstance(argument, tuple):
            if parameter != "p":
                yield len(argument)
            yield from (float(v) if parameter == "n" else int(v) for v in argument)
        else:
            yield float(argument) if parameter == "f" else int(argument)


def _integers(words: Iterator[str]) -> tuple[int, ...]:
    return tuple(int(next(words)) for _ in range(int(next(words))))


def _read_step(words: Iterator[str]) -> Step:
    kind, out = KINDS[int(next(words))], int(next(words))
    reads = _integers(words)
    numbers = iter([next(words) for _ in range(int(next(words)))])
    arguments: list[Argument] = []
    for parameter in PARAMETERS[kind]:
        if parameter == "p":
            arguments.append((int(next(numbers)), int(next(numbers))))
        elif parameter == "n":
            arguments.append(tuple(_real(next(numbers)) for _ in range(int(next(numbers)))))
        elif parameter == "m":
            arguments.append(_integers(numbers))
        else:
            word = next(numbers)
            real = parameter == "f"
            arguments.append(
                _real(word) if real else bool(int(word)) if parameter == "b" else int(word)
            )
    return Step(kind, out, reads, tuple(arguments))


def _real(word: str) -> float:
    return float.fromhex(word)


def renumbered(steps: Sequence[Step], inputs: Sequence[int], outputs: Sequence[int]) -> Region:
    """Return the region whose values are numbered densely, inputs first."""
    places: dict[int, int] = {value: i for i, value in enumerate(inputs)}
    for step in steps:
        places.setdefault(step.out, len(places))
    return Region(
        len(inputs),
        len(places),
        tuple(places[v] for v in outputs),
        tuple(
            Step(s.kind, places[s.out], tuple(places[r] for r in s.reads), s.arguments)
            for s in steps
        ),
    )


def multiply_adds(step: Step, x: Sequence[int], out: Sequence[int]) -> int:
    """Return how many multiply-adds a layer's step takes, 0 for any other step.

    x, out: shapes of the first value it reads and of the one it makes.
    """
    if step.kind in ("int8_linear", "int8_linear_dynamic"):
        return prod(out) * x[-1]
    if step.kind not in LAYERS:
        return 0
    is_dense = step.kind == "int8_conv2d"
    kernel = cast(tuple[int, int], step.arguments[2 if is_dense else 1])
    groups = cast(int, step.arguments[6]) if is_dense else x[1]
    return prod(out) * prod(kernel) * x[1] // groups


def buffers_of(step: Step) -> tuple[int, ...]:
    """Return the indices of the buffers a step reads: its weight, its table."""
    named = zip(PARAMETERS[step.kind], cast(tuple[int, ...], step.arguments), strict=True)
    return tuple(index for letter, index in named if letter in "wo" and index != -1)
