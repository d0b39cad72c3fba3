"""What steps of float islands compute, in torch: their part of int8_region's reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastinfer.types.float_functions import (
    FLOAT_BINARY,
    FLOAT_REDUCE,
    FLOAT_UNARY,
    OWN_REDUCE,
    OWN_UNARY,
    PAD_MODES,
    reshape_sizes,
)
from fastinfer.types.region import Step

_Functions = Mapping[str, Callable[..., Any]]
_Make = Callable[[Any, Sequence[Tensor], Sequence[Tensor], _Functions], Tensor]

_UNARY: Mapping[str, Callable[[Tensor, float, float], Tensor]] = {
    "clamp": torch.clamp,
    "abs": lambda x, a, b: x.abs(),
    "neg": lambda x, a, b: -x,
    "leaky_relu": lambda x, a, b: torch.where(x > 0, x, x * a),
    "square": lambda x, a, b: x * x,
    "reciprocal": lambda x, a, b: 1.0 / x,
}
_BINARY: Mapping[str, Callable[[Any, Any], Tensor]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "prelu": lambda x, weight: torch.where(x > 0, x, weight * x),
}


def _unary(a: Any, reads: Sequence[Tensor], _: Any, functions: _Functions) -> Tensor:
    name = FLOAT_UNARY[a[0]]
    if name in OWN_UNARY:
        result: Tensor = functions["float_unary"](reads[0], name)
        return result
    return _UNARY[name](reads[0], *a[1:])


def _binary(a: Any, reads: Sequence[Tensor], packed: Sequence[Tensor], _: Any) -> Tensor:
    function, index, shape, number, is_reversed = a
    x = reads[0]
    if len(reads) > 1:
        y = reads[1]
    elif index != -1:
        y = packed[index].reshape(shape)
    else:
        y = torch.tensor(number, dtype=x.dtype, device=x.device)
    return _BINARY[FLOAT_BINARY[function]](*((y, x) if is_reversed else (x, y)))


def _reduce(a: Any, reads: Sequence[Tensor], _: Any, functions: _Functions) -> Tensor:
    function, dims = FLOAT_REDUCE[a[0]], list(a[1])
    result: Tensor
    if function in OWN_REDUCE:
        result = functions["float_reduce"](reads[0], dims, function)
    else:
        result = getattr(reads[0], function)(dims, True)
    return result


def _group_norm(
    a: Any, reads: Sequence[Tensor], packed: Sequence[Tensor], functions: _Functions
) -> Tensor:
    groups, *parameters, eps = a
    weight, bias = (None if p == -1 else packed[p] for p in parameters)
    result: Tensor = functions["float_group_norm"](reads[0], groups, weight, bias, eps)
    return result


def _attention(
    a: Any, reads: Sequence[Tensor], packed: Sequence[Tensor], functions: _Functions
) -> Tensor:
    scale, is_causal, index, shape = a
    mask = reads[3] if len(reads) > 3 else None
    if index != -1:
        mask = packed[index].reshape(shape)
    result: Tensor = functions["float_attention"](*reads[:3], scale, mask, is_causal)
    return result


def _reshape(a: Any, reads: Sequence[Tensor], *_: Any) -> Tensor:
    x, like = reads[0], reads[-1]
    return x.reshape(reshape_sizes(x.shape, like.shape, a[0]))


def _pad(a: Any, reads: Sequence[Tensor], *_: Any) -> Tensor:
    amounts, mode, fill = a
    fill = fill if reads[0].is_floating_point() else int(fill)
    if PAD_MODES[mode] == "constant":
        return F.pad(reads[0], list(amounts), value=fill)
    return F.pad(reads[0], list(amounts), PAD_MODES[mode])


def _slice(a: Any, reads: Sequence[Tensor], *_: Any) -> Tensor:
    result: Tensor = torch.ops.aten.slice.Tensor(reads[0], *a)
    return result


def _pixel_shuffle(a: Any, reads: Sequence[Tensor], *_: Any) -> Tensor:
    return F.pixel_shuffle(reads[0], a[0]) if a[0] > 0 else F.pixel_unshuffle(reads[0], -a[0])


ISLAND_STEPS: Mapping[str, _Make] = {
    "float_unary": _unary,
    "float_binary": _binary,
    "float_reduce": _reduce,
    "float_group_norm": _group_norm,
    "float_matmul": lambda a, reads, packed, functions: functions["float_matmul"](*reads),
    "float_attention": _attention,
    "float_max_pool2d": lambda a, reads, *_: F.max_pool2d(reads[0], *a),
    "permute": lambda a, reads, *_: reads[0].permute(a[0]),
    "reshape": _reshape,
    "roll": lambda a, reads, *_: reads[0].roll(a[0], a[1]),
    "pad": _pad,
    "strided_slice": _slice,
    "pixel_shuffle": _pixel_shuffle,
    "join": lambda a, reads, *_: torch.cat(list(reads), a[0]),
}


def run_island_step(
    step: Step, reads: Sequence[Tensor], packed: Sequence[Tensor], functions: _Functions
) -> Tensor:
    """Return the value a step makes: 4-D ones NHWC in memory, others row-major.

    functions: our own ops' references or shape rules, by name.
    """
    result = ISLAND_STEPS[step.kind](step.arguments, reads, packed, functions)
    layout = torch.channels_last if result.dim() == 4 else torch.contiguous_format
    return torch.empty_like(result, memory_format=layout).copy_(result)
