"""Where int8 ops run, as facts of a device and a dtype."""

from __future__ import annotations

import torch

#: Tensor cores multiply int8 as the CUDA kernels need it from here on.
LEAST_CAPABILITY = (8, 0)
#: Devices on which layers of float16 and bfloat16 models become int8. On a CPU such models stay as
#: they are.
HALF_DEVICES = frozenset({"cuda"})
HALVES = frozenset({torch.float16, torch.bfloat16})


def takes_int8(dtype: torch.dtype | None, device: torch.device) -> bool:
    """Return True where tensors of this dtype may be quantized on this device."""
    if device.type not in ("cpu", "cuda"):
        return False
    return dtype == torch.float32 or (dtype in HALVES and device.type in HALF_DEVICES)


def why_no_int8(device: torch.device) -> str | None:
    """Return why no int8 kernel runs on a device, or None."""
    if device.type == "cpu":
        return None
    if device.type != "cuda":
        return f"weight is on {device}, int8 layers run on cpu and cuda"
    capability = torch.cuda.get_device_capability(device)
    if capability >= LEAST_CAPABILITY:
        return None
    return (
        f"{device} has compute capability {capability[0]}.{capability[1]}, int8 kernels need "
        f"{LEAST_CAPABILITY[0]}.{LEAST_CAPABILITY[1]}: torch's own kernels serve it in float"
    )
