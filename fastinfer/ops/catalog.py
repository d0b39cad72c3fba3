"""The list of all ops: tests, benches and the op table read it."""

from __future__ import annotations

from fastinfer.ops.float_rows import FLOAT_GLOBAL_AVG_POOL2D, FLOAT_LAYER_NORM, FLOAT_SOFTMAX
from fastinfer.ops.float_sums import (
    FLOAT_ATTENTION,
    FLOAT_GROUP_NORM,
    FLOAT_MATMUL,
    FLOAT_REDUCE,
    FLOAT_UNARY,
)
from fastinfer.ops.float_upsample import FLOAT_UPSAMPLE2D
from fastinfer.ops.int8_conv2d import INT8_CONV2D, INT8_CONV2D_DYNAMIC, INT8_DEPTHWISE_CONV2D
from fastinfer.ops.int8_linear import INT8_LINEAR, INT8_LINEAR_DYNAMIC
from fastinfer.ops.int8_lookup import INT8_LOOKUP
from fastinfer.ops.int8_pointwise import INT8_ADD, INT8_CAT, INT8_MUL
from fastinfer.ops.int8_pool import (
    INT8_ADAPTIVE_AVG_POOL2D,
    INT8_AVG_POOL2D,
    INT8_MAX_POOL2D,
)
from fastinfer.ops.int8_prepack import INT8_PREPACK, INT8_UNPACK
from fastinfer.ops.int8_region import INT8_REGION
from fastinfer.ops.int8_upsample import INT8_UPSAMPLE2D
from fastinfer.ops.quantize import DEQUANTIZE, QUANTIZE, QUANTIZE_DYNAMIC
from fastinfer.ops.sparse_float import SPARSE_FLOAT_CONV2D, SPARSE_FLOAT_LINEAR
from fastinfer.ops.spec import OpSpec

OPS: tuple[OpSpec, ...] = (
    QUANTIZE,
    DEQUANTIZE,
    QUANTIZE_DYNAMIC,
    INT8_PREPACK,
    INT8_UNPACK,
    INT8_LINEAR,
    INT8_LINEAR_DYNAMIC,
    INT8_CONV2D,
    INT8_DEPTHWISE_CONV2D,
    INT8_CONV2D_DYNAMIC,
    INT8_LOOKUP,
    INT8_ADD,
    INT8_MUL,
    INT8_CAT,
    INT8_MAX_POOL2D,
    INT8_AVG_POOL2D,
    INT8_ADAPTIVE_AVG_POOL2D,
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
    SPARSE_FLOAT_LINEAR,
    SPARSE_FLOAT_CONV2D,
    INT8_REGION,
)
