"""What a network is timed as. Each contender has a process of its own (worker.py).

Ours never shares one with torch.compile: where that had made CUDA graphs, torch's generator of
random numbers refused on the GPU, and `convert` could not time anything.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gpu_models.networks import Network

#: What is timed, and what making it took.
Prepared = tuple[Callable[[], Tensor], dict[str, Any]]
EAGER, EAGER_BF16, COMPILED, OURS = "eager fp32", "eager bf16", "compile bf16", "fastinfer"


def placed(x: Tensor, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the input on the device; images in NHWC memory, numbers of tokens as they are."""
    if not x.is_floating_point():
        return x.to(device)
    memory = torch.channels_last if x.dim() == 4 else torch.contiguous_format
    return x.to(device, dtype, memory_format=memory)


def placed_model(network: Network, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Return a copy of the network on the device, images in NHWC memory."""
    model = copy.deepcopy(network.model).to(device, dtype)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def half(x: Tensor) -> Tensor:
    """Return the input in bfloat16; numbers of tokens as they are."""
    return x.bfloat16() if x.is_floating_point() else x


def eager(network: Network, x: Tensor) -> Prepared:
    """Return the network as it is, float32 with torch's defaults (TF32 in cuDNN alone)."""
    model = placed_model(network, x.device, torch.float32)
    return lambda: model(x), {}


def eager_bf16(network: Network, x: Tensor) -> Prepared:
    """Return the network in bfloat16."""
    model, cast = placed_model(network, x.device, torch.bfloat16), half(x)
    return lambda: model(cast), {}


def compiled(network: Network, x: Tensor) -> Prepared:
    """Return torch.compile's network in bfloat16, for this shape, with CUDA graphs of its own."""
    began = time.perf_counter()
    model, cast = placed_model(network, x.device, torch.bfloat16), half(x)
    fast = torch.compile(model, mode="reduce-overhead", dynamic=False)

    def call() -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        result: Tensor = fast(cast)
        return result

    with torch.inference_mode():
        for _ in range(3):  # compile, record, replay
            call()
    return call, {"compile_s": time.perf_counter() - began}


def ours(network: Network, x: Tensor) -> Prepared:
    """Return the converted network, chosen at this shape.

    The accuracy guard is off: with random weights no layer has an accuracy to keep.
    """
    import fastinfer
    from fastinfer.config import Config

    began = time.perf_counter()
    model = placed_model(network, x.device, torch.float32)
    calibration = [placed(part, x.device) for part in network.calibration.split(8)]
    config = Config(min_sqnr_db=-math.inf)
    fast = fastinfer.convert(model, x, config=config, calibration=calibration)
    report = fastinfer.report(fast)
    layers = [row.precision for row in report.layers]
    return lambda: fast(x), {
        "convert_s": time.perf_counter() - began,
        "path": report.path,
        "layers": {kind: layers.count(kind) for kind in sorted(set(layers))},
        "notes": report.notes,
    }


CONTENDERS: Mapping[str, Callable[[Network, Tensor], Prepared]] = {
    EAGER: eager,
    EAGER_BF16: eager_bf16,
    COMPILED: compiled,
    OURS: ours,
}
#: What prepares itself mostly on processors, and so while others are prepared.
BACKGROUND = (COMPILED,)
