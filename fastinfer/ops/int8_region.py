"""A region of a model as one op: the steps of a types.region.Region, run by the engine."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastinfer.ops.float_rows import FLOAT_GLOBAL_AVG_POOL2D, FLOAT_LAYER_NORM, FLOAT_SOFTMAX
from fastinfer.ops.float_sums import (
    FLOAT_ATTENTION,
    FLOAT_GROUP_NORM,
    FLOAT_MATMUL,
    FLOAT_REDUCE,
    FLOAT_UNARY,
)
from fastinfer.ops.float_upsample import FLOAT_UPSAMPLE2D
from fastinfer.ops.int8_conv2d import INT8_CONV2D, INT8_DEPTHWISE_CONV2D
from fastinfer.ops.int8_linear import INT8_LINEAR, INT8_LINEAR_DYNAMIC
from fastinfer.ops.int8_lookup import INT8_LOOKUP
from fastinfer.ops.int8_pointwise import INT8_ADD, INT8_CAT, INT8_MUL
from fastinfer.ops.int8_pool import (
    INT8_ADAPTIVE_AVG_POOL2D,
    INT8_AVG_POOL2D,
    INT8_MAX_POOL2D,
)
from fastinfer.ops.int8_upsample import INT8_UPSAMPLE2D
from fastinfer.ops.island_steps import ISLAND_STEPS, run_island_step
from fastinfer.ops.quantize import DEQUANTIZE, QUANTIZE
from fastinfer.ops.spec import OpSpec
from fastinfer.types.region import Region, Step

_STEP_OPS = (
    QUANTIZE,
    DEQUANTIZE,
    INT8_CONV2D,
    INT8_DEPTHWISE_CONV2D,
    INT8_LINEAR,
    INT8_LINEAR_DYNAMIC,
    INT8_LOOKUP,
    INT8_MAX_POOL2D,
    INT8_AVG_POOL2D,
    INT8_ADAPTIVE_AVG_POOL2D,
    INT8_ADD,
    INT8_MUL,
    INT8_CAT,
    INT8_UPSAMPLE2D,
    FLOAT_LAYER_NORM,
    FLOAT_SOFTMAX,
    FLOAT_GLOBAL_AVG_POOL2D,
    FLOAT_UPSAMPLE2D,
    FLOAT_REDUCE,
    FLOAT_GROUP_NORM,
    FLOAT_MATMUL,
    FLOAT_ATTENTION,
    FLOAT_UNARY,
)
_REFERENCES: dict[str, Callable[..., Any]] = {op.name: op.reference for op in _STEP_OPS}
_FAKES: dict[str, Callable[..., Any]] = {op.name: op.fake for op in _STEP_OPS}
_WEIGHTED = ("int8_conv2d", "int8_depthwise_conv2d", "int8_linear")

read_region = functools.lru_cache(maxsize=64)(Region.from_text)


def run_step(
    step: Step,
    reads: Sequence[Tensor],
    packed: Sequence[Tensor],
    functions: Mapping[str, Callable[..., Any]],
) -> Tensor:
    """Return the value a step makes, computed by the function of its kind."""
    kind, arguments, x = step.kind, step.arguments, reads[0]
    if kind == "flatten":
        return x.flatten(1)
    if kind == "slice":
        first, last = (_index(a) for a in arguments)
        return _nhwc(x[:, first:last])
    if kind == "channel_shuffle":
        n, c, h, w = x.shape
        groups = _index(arguments[0])
        parts = x.reshape(n, groups, c // groups, h, w)
        return _nhwc(parts.transpose(1, 2).reshape(n, c, h, w))
    if kind == "contiguous":
        return torch.empty_like(x, memory_format=torch.contiguous_format).copy_(x)
    if kind in ISLAND_STEPS:
        return run_island_step(step, reads, packed, functions)
    function = functions[kind]
    result: Tensor
    if kind == "quantize":
        result = function(x, *arguments, x.dim() == 4)
    elif kind in _WEIGHTED:
        residual = reads[1] if len(reads) > 1 else None
        weight, *geometry, float_output = arguments
        result = function(x, packed[_index(weight)], residual, *geometry, float_output)
    elif kind == "int8_linear_dynamic":
        weight, out_features = arguments
        result = function(x, packed[_index(weight)], out_features, True)
    elif kind == "int8_lookup":
        result = function(x, packed[_index(arguments[0])])
    elif kind == "float_layer_norm":
        dim, weight, bias, eps = arguments
        parameters = (None if a == -1 else packed[_index(a)] for a in (weight, bias))
        result = function(x, *parameters, eps, dim)
    elif kind in ("int8_upsample2d", "float_upsample2d"):
        size, factor_h, factor_w, *flags = arguments
        like = reads[1] if len(reads) > 1 else None
        factors = (factor_h, factor_w) if factor_h != 0 else ()
        result = function(x, like, size if size != (0, 0) else (), factors, *flags)
    elif kind == "int8_cat":
        result = function(list(reads), *arguments)
    elif kind == "int8_add":
        *numbers, table = arguments
        result = function(*reads, *numbers, packed[_index(table)] if table != -1 else None)
    else:
        result = function(*reads, *arguments)
    # Rows of an image are along its width, too; a region answers images in one layout.
    is_of_rows = kind in ("float_layer_norm", "float_softmax") and result.dim() == 4
    return _nhwc(result) if is_of_rows else result


def _nhwc(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)


def _index(argument: Any) -> int:
    return int(argument)


def _run(
    inputs: Sequence[Tensor],
    packed: Sequence[Tensor],
    program: str,
    functions: Mapping[str, Callable[..., Any]],
) -> list[Tensor]:
    region = read_region(program)
    if len(inputs) != region.n_inputs:
        raise ValueError(
            f"int8_region: expected {region.n_inputs} inputs as the program says, got {len(inputs)}"
        )
    values: dict[int, Tensor] = dict(enumerate(inputs))
    for step in region.steps:
        values[step.out] = run_step(step, [values[r] for r in step.reads], packed, functions)
    return [values[v] for v in region.outputs]


def int8_region_fake(
    inputs: Sequence[Tensor], packed: Sequence[Tensor], program: str
) -> list[Tensor]:
    """Shape rule of int8_region."""
    return _run(inputs, packed, program, _FAKES)


def int8_region_ref(
    inputs: Sequence[Tensor], packed: Sequence[Tensor], program: str
) -> list[Tensor]:
    """Return the outputs of a program's steps, each computed by its own op's reference.

    inputs: the region's, float32 or uint8. packed: the buffers its steps name by index: packed
    weights, tables [256] uint8, parameters [C] float32 of norms. program:
    types.region.Region.to_text().
    """
    return _run(inputs, packed, program, _REFERENCES)


INT8_REGION = OpSpec(
    "int8_region",
    "(Tensor[] inputs, Tensor[] packed, str program) -> Tensor[]",
    int8_region_fake,
    int8_region_ref,
)

#: The same in two: what does not change from call to call is given once, for a number. Of the CPU
#: kernels, without shape rules or references, and for calls that nothing traces. The third is the
#: second for regions of one input and one output: between two calls the code that packs lists
#: leaves the caches.
BOUND_REGION_SCHEMAS = (
    "int8_region_bind(Tensor[] packed, str program) -> int",
    "int8_region_call(Tensor[] inputs, int region) -> Tensor[]",
    "int8_region_call_one(Tensor input, int region) -> Tensor",
)
