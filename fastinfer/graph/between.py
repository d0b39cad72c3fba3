"""Operations between layers that have an int8 form: found in a captured graph, not put there.

The graph keeps its operators, so float modes, calibration and a graph in which nothing is found
run exactly what was captured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from fastinfer.graph.activations import activation_of
from fastinfer.graph.layer import apply_activation
from fastinfer.graph.match import arguments, dims
from fastinfer.types import Activation
from fastinfer.types.device import takes_int8

aten = torch.ops.aten

KINDS = (
    "add", "mul", "cat", "max_pool", "avg_pool", "adaptive_avg_pool", "upsample", "activation",
)  # fmt: skip
#: Kinds whose int8 op clamps its codes; "add" alone has a table too.
_CLAMPED = ("add", "mul", "avg_pool", "adaptive_avg_pool")


@dataclass(frozen=True)
class BetweenSpec:
    """What an operation computes; pairs are (height, width).

    `activation` follows the operation, or is it (kind "activation"). `output_size` belongs to
    adaptive_avg_pool, whose result is [N, C] when not `keepdim`; `dim` to cat, with the parts'
    `sizes` in it where all are known; `align_corners` and `scale_factors` to upsample, which is
    bilinear and whose size the factors say when there are any; the rest to max_pool and avg_pool.
    """

    kind: str
    activation: Activation = field(default_factory=Activation)
    kernel_size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    ceil_mode: bool = False
    count_include_pad: bool = True
    output_size: tuple[int, int] = (1, 1)
    keepdim: bool = True
    dim: int = 0
    sizes: tuple[int, ...] = ()
    align_corners: bool = False
    scale_factors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"BetweenSpec: expected kind in {KINDS}, got {self.kind!r}")


@dataclass(frozen=True)
class Between:
    """An operation as it stands in a graph.

    `inputs` are in the order the int8 op takes them; `inner` is the node of the operation itself
    where this one is the activation behind it. `size` is what an upsample without scale factors is
    given as height and width.
    """

    spec: BetweenSpec
    inputs: tuple[fx.Node, ...]
    inner: fx.Node | None = None
    size: tuple[Any, ...] = ()


def accumulate(spec: BetweenSpec, xs: Sequence[Tensor], size: Sequence[int] = ()) -> Tensor:
    """Return the operation of float tensors, without the activation behind it.

    size: height and width of what an upsample without scale factors makes.
    """
    s, x = spec, xs[0]
    if s.kind == "add":
        return x + xs[1]
    if s.kind == "mul":
        return x * xs[1]
    if s.kind == "cat":
        return torch.cat(list(xs), s.dim)
    if s.kind == "max_pool":
        return F.max_pool2d(x, s.kernel_size, s.stride, s.padding, s.dilation, s.ceil_mode)
    if s.kind == "avg_pool":
        return F.avg_pool2d(x, s.kernel_size, s.stride, s.padding, s.ceil_mode, s.count_include_pad)
    if s.kind == "adaptive_avg_pool":
        y = F.adaptive_avg_pool2d(x, s.output_size)
        return y if s.keepdim else y.flatten(1)
    if s.kind == "upsample":
        return aten.upsample_bilinear2d.vec(
            x, None if s.scale_factors else list(size), s.align_corners, s.scale_factors or None
        )
    return x


def compute(spec: BetweenSpec, xs: Sequence[Tensor], size: Sequence[int] = ()) -> Tensor:
    """Return what the float graph computes for an operation and its activation."""
    return apply_activation(spec.activation, accumulate(spec, xs, size))


def find_betweens(graph: fx.Graph) -> dict[fx.Node, Between]:
    """Return the operations of a captured graph that have an int8 form, in graph order.

    A clamp, or any activation behind an addition, belongs to the operation before it when nothing
    else reads that.
    """
    found: dict[fx.Node, Between] = {}
    for node in graph.nodes:
        between = _between(node)
        if between is None:
            continue
        source = between.inputs[0]
        before = found.get(source) if between.spec.kind == "activation" else None
        if before is not None and len(source.users) == 1 and _takes(before.spec, between.spec):
            del found[source]
            spec = replace(before.spec, activation=between.spec.activation)
            between = Between(spec, before.inputs, source)
        found[node] = between
    return found


def _takes(spec: BetweenSpec, behind: BetweenSpec) -> bool:
    """Return True when an operation's int8 op can also do the activation behind it."""
    if not spec.activation.is_identity:
        return False
    return spec.kind == "add" or (spec.kind in _CLAMPED and behind.activation.is_clamp)


def _between(node: fx.Node) -> Between | None:
    """Return the operation a node alone is, None when no int8 op serves it."""
    reader = _READERS.get(node.target) if node.op == "call_function" else None
    between = None if reader is None else reader(node, arguments(node))
    if between is None:  # a tensor and a number are a function of the tensor
        between = _activation(node)
    if between is None or not all(_is_served(n) for n in (node, *between.inputs)):
        return None
    return between


def _is_served(node: fx.Node) -> bool:
    value = node.meta.get("val")
    is_tensor = isinstance(value, Tensor) and node.op != "get_attr"
    return is_tensor and takes_int8(value.dtype, value.device)


def _activation(node: fx.Node) -> Between | None:
    activation = activation_of(node)
    if activation is None:
        return None
    return Between(BetweenSpec("activation", activation), (node.args[0],))  # type: ignore[arg-type]


def _pair(value: object) -> tuple[int, int] | None:
    """Return (height, width) of an int or a list of one or two ints; None for anything else."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    if len(values) not in (1, 2) or not all(type(v) is int for v in values):
        return None
    return values[0], values[-1]


def _is_image(node: object) -> bool:
    sizes = dims(node)
    return sizes is not None and len(sizes) == 4


def _binary(node: fx.Node, values: dict[str, Any]) -> Between | None:
    kind = "add" if node.target is aten.add.Tensor else "mul"
    x, y = values["self"], values["other"]
    if values.get("alpha", 1) != 1 or dims(x) is None or dims(y) is None:
        return None
    # The op broadcasts its second operand over an image and nothing else.
    for a, b in ((x, y), (y, x)):
        sizes, other = dims(a), dims(b)
        assert sizes is not None
        is_scale = len(sizes) == 4 and other == (*sizes[:2], 1, 1)
        if sizes and (other == sizes or is_scale):
            return Between(BetweenSpec(kind), (a, b))
    return None


def _cat(node: fx.Node, values: dict[str, Any]) -> Between | None:
    parts, dim, rank = values["tensors"], values["dim"], dims(node)
    if rank is None or type(dim) is not int or not parts:
        return None
    # torch.cat skips an empty tensor of one dimension, whatever the others are.
    if any(len(dims(part) or ()) != len(rank) for part in parts):
        return None
    dim %= len(rank)
    sizes = [size[dim] for size in map(dims, parts) if size is not None]
    known = all(isinstance(size, int) for size in sizes)
    return Between(
        BetweenSpec("cat", dim=dim, sizes=tuple(sizes) if known else ()),  # type: ignore[arg-type]
        tuple(parts),
    )


def _max_pool(node: fx.Node, values: dict[str, Any]) -> Between | None:
    kernel, padding = _pair(values["kernel_size"]), _pair(values["padding"])
    stride, dilation = _pair(values["stride"] or values["kernel_size"]), _pair(values["dilation"])
    if None in (kernel, stride, padding, dilation) or not _is_image(values["self"]):
        return None
    return Between(
        BetweenSpec(
            "max_pool",
            kernel_size=kernel,  # type: ignore[arg-type]
            stride=stride,  # type: ignore[arg-type]
            padding=padding,  # type: ignore[arg-type]
            dilation=dilation,  # type: ignore[arg-type]
            ceil_mode=values["ceil_mode"],
        ),
        (values["self"],),
    )


def _avg_pool(node: fx.Node, values: dict[str, Any]) -> Between | None:
    kernel, padding = _pair(values["kernel_size"]), _pair(values["padding"])
    stride = _pair(values["stride"] or values["kernel_size"])
    if None in (kernel, stride, padding) or not _is_image(values["self"]):
        return None
    if values["divisor_override"] is not None:
        return None
    return Between(
        BetweenSpec(
            "avg_pool",
            kernel_size=kernel,  # type: ignore[arg-type]
            stride=stride,  # type: ignore[arg-type]
            padding=padding,  # type: ignore[arg-type]
            ceil_mode=values["ceil_mode"],
            count_include_pad=values["count_include_pad"],
        ),
        (values["self"],),
    )


def _adaptive_avg_pool(node: fx.Node, values: dict[str, Any]) -> Between | None:
    size = _pair(values["output_size"])
    if size is None or not _is_image(values["self"]):
        return None
    return Between(BetweenSpec("adaptive_avg_pool", output_size=size), (values["self"],))


def _mean(node: fx.Node, values: dict[str, Any]) -> Between | None:
    if not _is_image(values["self"]) or not isinstance(values["dim"], (list, tuple)):
        return None
    if sorted(d % 4 for d in values["dim"]) != [2, 3]:
        return None
    return Between(
        BetweenSpec("adaptive_avg_pool", keepdim=values["keepdim"]),
        (values["self"],),
    )


def _upsample(node: fx.Node, values: dict[str, Any]) -> Between | None:
    x, size, factors = values["input"], values["output_size"], values["scale_factors"]
    if not _is_image(x) or (size is None) == (factors is None):
        return None
    spec = BetweenSpec(
        "upsample",
        align_corners=values["align_corners"],
        scale_factors=tuple(map(float, factors or ())),
    )
    return Between(spec, (x,), size=tuple(size or ()))


_READERS: dict[object, Any] = {
    aten.add.Tensor: _binary,
    aten.mul.Tensor: _binary,
    aten.cat.default: _cat,
    aten.max_pool2d.default: _max_pool,
    aten.avg_pool2d.default: _avg_pool,
    aten.adaptive_avg_pool2d.default: _adaptive_avg_pool,
    aten.mean.dim: _mean,
    aten.upsample_bilinear2d.vec: _upsample,
}
