"""Weights into the buffer a kernel reads, and back."""

from __future__ import annotations

import torch
from torch import Tensor

from fastinfer.ops.spec import OpSpec
from fastinfer.types.packed import (
    FLAG_DYNAMIC,
    FLAG_FLOAT_OUTPUT,
    FLAG_RESIDUAL,
    FLAG_STRIDED,
    FLAG_TABLE,
    HEADER_BYTES,
    MAGIC,
    OPS,
    VERSION,
    PackedHeader,
    unpack,
)

_ALIGN = 64


def _check_vector(name: str, value: Tensor | None, n: int, dtype: torch.dtype) -> None:
    if value is not None and (value.dtype != dtype or list(value.shape) != [n]):
        raise ValueError(
            f"int8_prepack: expected {name} {dtype} [{n}], got {value.dtype} {list(value.shape)}"
        )


def check_prepack(
    op: str,
    weight: Tensor,
    bias: Tensor,
    multiplier: Tensor,
    residual_multiplier: Tensor | None,
    table: Tensor | None,
    float_bias: Tensor | None,
    groups: int,
    x_zero_point: int,
    out_zero_point: int,
    qmin: int,
    qmax: int,
    float_output: bool,
) -> None:
    """Raise ValueError for anything a kernel could turn into a wrong number."""
    if op not in OPS:
        raise ValueError(f"int8_prepack: expected op in {OPS}, got {op!r}")
    dims = 2 if op == "linear" else 4
    if weight.dtype != torch.int8 or weight.dim() != dims:
        raise ValueError(
            f"int8_prepack: expected weight int8 with {dims} dimensions for {op}, "
            f"got {weight.dtype} {list(weight.shape)}"
        )
    n = weight.shape[0]
    if weight.numel() == 0:
        raise ValueError(f"int8_prepack: expected a weight with elements, got {list(weight.shape)}")
    if groups < 1 or n % groups or (op == "linear" and groups != 1):
        raise ValueError(f"int8_prepack: groups={groups} does not divide {n} output channels")
    if op == "depthwise_conv2d" and (groups != n or weight.shape[1] != 1):
        raise ValueError(
            f"int8_prepack: depthwise_conv2d: expected weight [C, 1, kh, kw] and groups=C, "
            f"got {list(weight.shape)} and groups={groups}"
        )
    _check_vector("bias", bias, n, torch.int32)
    _check_vector("multiplier", multiplier, n, torch.float32)
    _check_vector("residual_multiplier", residual_multiplier, n, torch.float32)
    _check_vector("float_bias", float_bias, n, torch.float32)
    _check_vector("table", table, 256, torch.uint8)
    if not (0 <= x_zero_point <= 255 and 0 <= out_zero_point <= 255):
        raise ValueError(
            "int8_prepack: expected zero points in 0..255, "
            f"got x {x_zero_point}, out {out_zero_point}"
        )
    if not 0 <= qmin <= qmax <= 255:
        raise ValueError(f"int8_prepack: expected 0 <= qmin <= qmax <= 255, got {qmin}, {qmax}")
    if table is not None and float_output:
        raise ValueError("int8_prepack: a table needs an int8 output, got float_output=True")
    if float_bias is not None and (not float_output or residual_multiplier is not None):
        raise ValueError("int8_prepack: a dynamic weight answers in float and takes no residual")
    if bool((weight == -128).any()):
        raise ValueError("int8_prepack: expected weights in -127..127, got -128")
    worst = weight.reshape(n, -1).to(torch.int64).abs().sum(1) * 255 + bias.to(torch.int64).abs()
    if bool((worst >= 2**31).any()):
        channel = int(worst.argmax())
        raise ValueError(
            f"int8_prepack: channel {channel} can reach {int(worst[channel])} >= 2^31 in its int32 "
            "accumulator; keep this layer float or split it along K"
        )


def prepack_ref(
    op: str,
    weight: Tensor,
    bias: Tensor,
    multiplier: Tensor,
    residual_multiplier: Tensor | None,
    table: Tensor | None,
    float_bias: Tensor | None,
    groups: int,
    x_zero_point: int,
    out_zero_point: int,
    qmin: int,
    qmax: int,
    clamp_min: float,
    clamp_max: float,
    float_output: bool,
    strided: bool = False,
) -> Tensor:
    """Return the canonical packed buffer (1-D uint8): header, then row-major sections.

    op: linear (weight [N, K] int8), conv2d ([N, C/groups, kh, kw]) or depthwise_conv2d
    ([C, 1, kh, kw]). bias: [N] int32 with the zero-point correction folded in. multiplier: [N]
    float32. residual_multiplier: [N] float32 when a residual will be added (for a float result its
    values do not matter). table: [256] uint8, applied last. float_bias: [N] float32 marks a
    dynamic weight. strided: the convolution's step is more than 1, which decides how a CPU packs
    it, not what it answers. A kernel's own layout differs; `unpack` reads every one.
    """
    check_prepack(
        op, weight, bias, multiplier, residual_multiplier, table, float_bias, groups, x_zero_point,
        out_zero_point, qmin, qmax, float_output,
    )  # fmt: skip
    n = weight.shape[0]
    is_depthwise = op == "depthwise_conv2d"
    k = weight[0].numel()
    kh, kw = (1, 1) if op == "linear" else tuple(weight.shape[2:])
    sections: list[Tensor] = []
    at = HEADER_BYTES

    def add(value: Tensor | None) -> int:
        nonlocal at
        if value is None:
            return 0
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        padding = -raw.numel() % _ALIGN
        sections.append(torch.cat([raw, raw.new_zeros(padding)]))
        start, at = at, at + raw.numel() + padding
        return start

    offsets = {
        "weight": add(weight),
        "bias": add(bias),
        "multiplier": add(multiplier),
        "residual_multiplier": add(residual_multiplier),
        "table": add(table),
        "float_bias": add(float_bias),
    }
    flags = FLAG_FLOAT_OUTPUT * float_output + FLAG_RESIDUAL * (residual_multiplier is not None)
    flags += FLAG_TABLE * (table is not None) + FLAG_DYNAMIC * (float_bias is not None)
    flags += FLAG_STRIDED * strided
    stored_groups = 1 if is_depthwise else groups
    header = PackedHeader(
        magic=MAGIC, version=VERSION, op=OPS.index(op), layout=0, n=n, k=k, groups=stored_groups,
        c_per_group=1 if op == "linear" else weight.shape[1], kh=kh, kw=kw, nr=1,
        panels_per_group=n // stored_groups, x_zero_point=x_zero_point,
        out_zero_point=out_zero_point, qmin=qmin, qmax=qmax, flags=flags, form=0,
        clamp_min=clamp_min, clamp_max=clamp_max, pixels=0, run=k,
        weight_bytes=weight.numel(), index=0, index_bytes=0, weight_sum=0, total_bytes=at,
        **offsets,
    )  # fmt: skip
    head = torch.frombuffer(bytearray(header.to_bytes()), dtype=torch.uint8)
    return torch.cat([head, *sections]).to(weight.device)


def prepack_fake(op: str, weight: Tensor, *args: object) -> Tensor:
    """Shape rule of int8_prepack: the size depends on the ISA and the values, so it is unbacked."""
    size = torch.library.get_ctx().new_dynamic_size()
    return torch.empty(size, dtype=torch.uint8, device=weight.device)


def unpack_ref(packed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return (weight, bias, multiplier, residual_multiplier, table, float_bias), canonical.

    Reads every layout; a part the buffer does not hold comes back empty.
    """
    parts = unpack(packed)
    values = (
        parts.weight,
        parts.bias,
        parts.multiplier,
        parts.residual_multiplier,
        parts.table,
        parts.float_bias,
    )
    return tuple(value.to(packed.device) for value in values)  # type: ignore[return-value]


def unpack_fake(packed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Unpacking reads the header's values, which a fake tensor has not."""
    raise RuntimeError("int8_unpack: cannot be traced: its shapes are in the buffer's header")


INT8_PREPACK = OpSpec(
    "int8_prepack",
    "(str op, Tensor weight, Tensor bias, Tensor multiplier, Tensor? residual_multiplier, "
    "Tensor? table, Tensor? float_bias, int groups, int x_zero_point, int out_zero_point, "
    "int qmin, int qmax, float clamp_min, float clamp_max, bool float_output, "
    "bool strided=False) -> Tensor",
    prepack_fake,
    prepack_ref,
)
INT8_UNPACK = OpSpec(
    "int8_unpack",
    "(Tensor packed) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    unpack_fake,
    unpack_ref,
)
