"""The base of modules that run on a packed weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastinfer.runtime import require_cuda_kernels
from fastinfer.types.device import why_no_int8
from fastinfer.types.folded import FoldedLayer
from fastinfer.types.packed import (
    FLAG_DYNAMIC,
    FLAG_FLOAT_OUTPUT,
    FLAG_RESIDUAL,
    FLAG_STRIDED,
    FLAG_TABLE,
    OPS,
    read_header,
)

_PARTS = ("weight", "bias", "multiplier", "residual_multiplier", "table", "float_bias")
_INTEGERS = ("x_zero_point", "out_zero_point", "qmin", "qmax")
_BOUNDS = ("clamp_min", "clamp_max")


def prepack(folded: FoldedLayer, device: torch.device | None = None) -> Tensor:
    """Return the buffer of folded, 1-D uint8.

    It is packed for a device, the weight's if None; on a CPU for the instruction set in force.
    """
    device = folded.weight.device if device is None else device

    def there(part: Tensor | None) -> Tensor | None:
        return None if part is None else part.to(device)

    packed: Tensor = torch.ops.fastinfer.int8_prepack(
        folded.op,
        there(folded.weight),
        there(folded.bias),
        there(folded.multiplier),
        there(folded.residual_multiplier),
        there(folded.table),
        there(folded.float_bias),
        folded.groups,
        folded.x_zero_point,
        folded.out_zero_point,
        folded.qmin,
        folded.qmax,
        folded.clamp_min,
        folded.clamp_max,
        folded.float_output,
        folded.strided,
    )
    return packed


def unpack(packed: Tensor) -> FoldedLayer:
    """Return the canonical parts of a packed buffer, whatever it was packed for."""
    header = read_header(packed)
    parts = dict(zip(_PARTS, torch.ops.fastinfer.int8_unpack(packed), strict=True))
    op = OPS[header.op]
    return FoldedLayer(
        op=op,
        weight=parts["weight"],
        bias=parts["bias"],
        multiplier=parts["multiplier"],
        residual_multiplier=parts["residual_multiplier"] if header.has(FLAG_RESIDUAL) else None,
        table=parts["table"] if header.has(FLAG_TABLE) else None,
        float_bias=parts["float_bias"] if header.has(FLAG_DYNAMIC) else None,
        groups=header.n if op == "depthwise_conv2d" else header.groups,
        x_zero_point=header.x_zero_point,
        out_zero_point=header.out_zero_point,
        qmin=header.qmin,
        qmax=header.qmax,
        clamp_min=header.clamp_min,
        clamp_max=header.clamp_max,
        float_output=header.has(FLAG_FLOAT_OUTPUT),
        strided=header.has(FLAG_STRIDED),
    )


class PackedModule(nn.Module):
    """Holds one packed weight; `state_dict` holds its canonical parts, and loading packs again.

    Keys: weight (int8), bias (int32), multiplier, and where there are any residual_multiplier,
    table, float_bias; `integers` [4] int64 (x_zero_point, out_zero_point, qmin, qmax) and
    `bounds` [2] float64 (clamp_min, clamp_max).

    A forward takes the buffer from `_buffers`: nn.Module's attribute lookup costs 1 us, a tenth of
    a small layer.
    """

    packed: Tensor

    def __init__(self, folded: FoldedLayer) -> None:
        super().__init__()
        self.register_buffer("packed", prepack(folded), persistent=False)
        self.out_features = folded.weight.shape[0]
        self.float_output = folded.float_output
        self.has_residual = folded.residual_multiplier is not None
        self._shape = tuple(folded.weight.shape)

    def folded(self) -> FoldedLayer:
        """Return the canonical integers of this module."""
        return unpack(self.packed)

    def repack(self) -> None:
        """Pack again for the instruction set now in force."""
        self.packed = prepack(self.folded())

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        folded = self.folded()
        for name in _PARTS:
            value = getattr(folded, name)
            if value is not None:
                destination[prefix + name] = value
        destination[prefix + "integers"] = torch.tensor([getattr(folded, n) for n in _INTEGERS])
        destination[prefix + "bounds"] = torch.tensor(
            [getattr(folded, n) for n in _BOUNDS], dtype=torch.float64
        )

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        folded = self.folded()
        wanted = [n for n in _PARTS if getattr(folded, n) is not None] + ["integers", "bounds"]
        if strict:
            mine = [key for key in state_dict if key.startswith(prefix)]
            unexpected_keys.extend(key for key in mine if key.removeprefix(prefix) not in wanted)
        missing = [prefix + name for name in wanted if prefix + name not in state_dict]
        if missing:
            missing_keys.extend(missing if strict else [])
            return
        values = {name: state_dict[prefix + name] for name in wanted}
        if tuple(values["weight"].shape) != self._shape:
            error_msgs.append(
                f"{prefix}weight: expected {list(self._shape)}, got {list(values['weight'].shape)}"
            )
            return
        integers = dict(zip(_INTEGERS, values.pop("integers").tolist(), strict=True))
        bounds = dict(zip(_BOUNDS, values.pop("bounds").tolist(), strict=True))
        parts = {name: value.detach().cpu() for name, value in values.items()}
        self.packed = prepack(
            FoldedLayer(
                op=folded.op,
                groups=folded.groups,
                float_output=folded.float_output,
                strided=folded.strided,
                **parts,
                **integers,
                **bounds,
            ),
            self.packed.device,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a copy's state; on a GPU its weight is packed again.

        Kernels there know a buffer by its address, and the copy's may be that of one that is gone.
        """
        super().__setstate__(state)
        if self.packed.is_cuda:
            self.repack()

    def check_move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Raise RuntimeError when fn, of nn.Module's `_apply`, takes tensors where no kernel is."""
        check_target(type(self).__name__, device_after(fn, self.packed.device))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedModule:
        target = device_after(fn, self.packed.device)
        check_target(type(self).__name__, target)
        if target != self.packed.device:  # another device has another order of bytes
            self.packed = prepack(self.folded(), target)
            return self
        applied = fn(self.packed)
        if applied.dtype == torch.uint8:  # bytes stay bytes whatever dtype is asked for
            self.packed = applied
        return self

    def extra_repr(self) -> str:
        """Describe the weight and what the module answers in."""
        answer = "float32" if self.float_output else "uint8"
        return f"weight={list(self._shape)} int8, output={answer}, {self.packed.numel()} bytes"


def device_after(fn: Callable[[Tensor], Tensor], device: torch.device) -> torch.device:
    """Return where fn, of nn.Module's `_apply`, puts tensors that are on device.

    Raises:
        RuntimeError: torch has no such device here.
    """
    try:
        return fn(torch.empty(0, dtype=torch.uint8, device=device)).device
    except (RuntimeError, AssertionError) as error:
        raise RuntimeError(
            f"to: expected a device that torch has here, got one it refuses: {error}; "
            "torch.cuda.is_available() and torch.cuda.device_count() say what there is"
        ) from error


def check_target(name: str, device: torch.device) -> None:
    """Raise RuntimeError when no kernel for packed weights runs on a device. name: whose they are.

    On a GPU there must be kernels, and it must have the instructions that they are made of.
    """
    fix = "move the original model and convert it there"
    if device.type not in ("cpu", "cuda"):
        raise RuntimeError(
            f"{name}: packed weights run on cpu and cuda only, got .to({str(device)!r}); {fix}"
        )
    if device.type == "cuda":
        reason = why_no_int8(device)
        if reason is not None:
            raise RuntimeError(f"{name}: packed weights: {reason}; {fix}")
        require_cuda_kernels()


def dequantized(folded: FoldedLayer) -> Tensor:
    """Return the weight times its scale, float32; only meaningful for dynamic layers."""
    shape = [-1] + [1] * (folded.weight.dim() - 1)
    return folded.weight.float() * folded.multiplier.reshape(shape)


class EffectiveWeight:
    """The float weight and bias a dynamic layer amounts to, for code that reads them."""

    folded: Callable[[], FoldedLayer]

    @property
    def weight(self) -> Tensor:
        """The weight times its scale, in the layer's shape, float32, made at each access."""
        return dequantized(self.folded())

    @property
    def bias(self) -> Tensor | None:
        """The bias [N], float32."""
        return self.folded().float_bias


def repack(model: nn.Module) -> int:
    """Pack every packed submodule of model again, after `set_isa`; return how many there were."""
    count = 0
    for module in model.modules():
        if isinstance(module, PackedModule):
            module.repack()
            count += 1
    return count
