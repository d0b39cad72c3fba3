"""SwiGLU and GeGLU: an activation of one tensor times another, and quantizing in the same pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .activations import activate, activate_ref, activation_kind
from .codes import OF_ROW, Codes, QuantizedRows, is_of_row, new_result, result_ref, store_rows
from .rows import as_rows, check_float, check_like, row_programs, tile_of_rows, value_config

_OP = "gated"


@triton.jit
def _gated_kernel(
    gate_ptr,
    up_ptr,
    out_ptr,
    scale_ptr,
    zero_point_ptr,
    rows,
    n,
    gate_stride,
    up_stride,
    step,
    zero,
    KIND: tl.constexpr,
    MODE: tl.constexpr,
    CODE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    row, column, row_inside, inside = tile_of_rows(
        rows, n, MODE == OF_ROW, BLOCK_ROWS, BLOCK_COLUMNS
    )
    gate = tl.load(gate_ptr + row[:, None] * gate_stride + column[None, :], mask=inside, other=0.0)
    up = tl.load(up_ptr + row[:, None] * up_stride + column[None, :], mask=inside, other=0.0)
    y = activate(gate.to(tl.float32), KIND) * up.to(tl.float32)
    store_rows(
        y, row, column, row_inside, inside, n, out_ptr, scale_ptr, zero_point_ptr, step, zero, MODE,
        CODE,
    )  # fmt: skip


def gated(
    gate: Tensor, up: Tensor, activation: str = "silu", codes: Codes | None = None
) -> Tensor | QuantizedRows:
    """Return activation(gate) * up, as gate's dtype or codes.

    gate, up: [*, n] float32, float16 or bfloat16, computed in float32; the halves of one
    projection, `y.chunk(2, -1)`, are read where they lie. activation: "silu" (SwiGLU), "gelu" or
    "gelu_tanh" (GeGLU), "relu" (ReGLU), "identity" (GLU without one).

    Raises:
        TypeError: gate is no float tensor, or up of another dtype.
        ValueError: an unknown activation, a shape or device that does not fit, or a row that is
            longer than the largest tile.

    Source: Shazeer, "GLU Variants Improve Transformer", section 2.
    """
    check_float(_OP, "gate", gate)
    check_like(_OP, "up", up, gate.shape, gate)
    kind = activation_kind(_OP, activation)
    config = value_config(_OP, gate.shape[-1], is_of_row(codes))
    result = new_result(_OP, gate, codes)
    gates, ups = as_rows(gate), as_rows(up)
    if gates.shape[0]:
        with torch.cuda.device_of(gate):
            _gated_kernel[(row_programs(config, *gates.shape),)](
                gates, ups, result.out, result.scale, result.zero_point, *gates.shape,
                gates.stride(0), ups.stride(0), result.step, result.zero, kind, result.mode,
                result.code, config.rows, config.columns, num_warps=config.warps,
                enable_fp_fusion=False,
            )  # fmt: skip
    return result.value


def gated_ref(
    gate: Tensor, up: Tensor, activation: str = "silu", codes: Codes | None = None
) -> Tensor | QuantizedRows:
    """Return what gated returns, in plain PyTorch."""
    return result_ref(activate_ref(gate.float(), activation) * up.float(), gate.dtype, codes)
