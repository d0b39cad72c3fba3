"""What a network is timed as, and one process that does it: python -m gpu_models.contenders NAME.

The process speaks JSON lines on standard output: {"ready": ...} when torch.compile has done its
work, and after a line on standard input, which says that the GPU is its own, a row for each batch.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import fastinfer
from fastinfer.config import Config
from fastinfer.measure.latency import Timing, time_interleaved
from gpu_models.networks import HELD_OUT, NETWORKS, Network

Call = Callable[[Tensor], Tensor]
EAGER, EAGER_BF16, COMPILED, OURS = "eager fp32", "eager bf16", "compile bf16", "fastinfer"
SECONDS = 0.6


def say(**values: Any) -> None:
    """Write a line for the process that asked."""
    print(json.dumps(values), file=sys.__stdout__, flush=True)


def reason(error: BaseException) -> str:
    """Return what went wrong, with where, short enough for a table's footnote."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {text[0][:300]} ({last.name}, line {last.lineno})"


def on_gpu(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the input on the GPU; images in NHWC memory, numbers of tokens as they are."""
    if not x.is_floating_point():
        return x.cuda()
    memory = torch.channels_last if x.dim() == 4 else torch.contiguous_format
    return x.cuda().to(dtype, memory_format=memory)


def half_model(network: Network) -> nn.Module:
    """Return the network as people serve it without us: bfloat16, NHWC."""
    model = copy.deepcopy(network.model).cuda().to(torch.bfloat16)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def compiled(model: nn.Module, inputs: list[Tensor]) -> Call:
    """Return torch.compile's model with CUDA graphs of its own, compiled for each of the inputs."""
    fast = torch.compile(model, mode="reduce-overhead", dynamic=False)

    def call(x: Tensor) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        result: Tensor = fast(x)
        return result

    for x in inputs:
        for _ in range(3):  # compile, record, replay
            call(x)
    torch.cuda.synchronize()
    return call


def sqnr_db(got: Tensor, wanted: Tensor) -> float:
    """Return the signal-to-noise ratio in dB."""
    wanted = wanted.double()
    noise = (got.double() - wanted).square().mean()
    return float(10 * torch.log10(wanted.square().mean() / noise.clamp_min(1e-30)))


def convert(network: Network, x: Tensor) -> tuple[nn.Module, dict[str, Any]]:
    """Return the converted network and what converting it said."""
    began = time.perf_counter()
    model = copy.deepcopy(network.model).cuda().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    calibration = [on_gpu(part, torch.float32) for part in network.calibration.split(8)]
    # Random weights: no layer returns to float for its accuracy, which is that of noise.
    config = Config(min_sqnr_db=-math.inf)
    fast = fastinfer.convert(model, x, config=config, calibration=calibration)
    report = fastinfer.report(fast)
    layers = [row.precision for row in report.layers]
    facts = {
        "convert_s": time.perf_counter() - began,
        "path": report.path,
        "layers": {kind: layers.count(kind) for kind in sorted(set(layers))},
        "notes": report.notes,
    }
    return fast, facts


def time_batch(network: Network, batch: int, peers: dict[str, Any]) -> dict[str, Any]:
    """Return the row of one batch size; what a contender cannot do is in it."""
    x = on_gpu(network.more(batch), torch.float32)
    half = x.bfloat16() if x.is_floating_point() else x
    row: dict[str, Any] = {"batch": batch, "failed": {}}
    model = copy.deepcopy(network.model).cuda().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    calls: dict[str, Callable[[], Any]] = {EAGER: lambda: model(x)}
    for name, call in peers.items():
        if isinstance(call, str):
            row["failed"][name] = call
        else:
            calls[name] = lambda call=call: call(half)
    held_out = on_gpu(network.more(HELD_OUT), torch.float32)
    with torch.inference_mode():
        wanted = model(held_out)
        if EAGER_BF16 in calls:
            cast = held_out.bfloat16() if held_out.is_floating_point() else held_out
            row["bf16 sqnr_db"] = sqnr_db(peers[EAGER_BF16](cast), wanted)
    try:
        fast, row["convert"] = convert(network, x)
        with torch.inference_mode():
            row["sqnr_db"] = sqnr_db(fast(held_out), wanted)
            calls[OURS] = lambda: fast(x)
            fast(x), fast(x)
    except Exception as error:  # the peers' times are worth having all the same
        row["failed"][OURS] = reason(error)
    with torch.inference_mode():
        times: dict[str, Timing] = time_interleaved(calls, min_time_s=SECONDS, warmup=3)
    row["ms"] = {name: timing.to_dict() for name, timing in times.items()}
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("network", choices=tuple(NETWORKS))
    parser.add_argument("--batch", type=int, nargs="+")
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    sys.stdout = sys.stderr  # what others print is no answer
    torch.backends.cudnn.benchmark = True
    build, batches = NETWORKS[options.network]
    batches = tuple(options.batch or batches)
    network = build()
    half = half_model(network)
    peers: dict[str, Any] = {EAGER_BF16: half}
    inputs = [on_gpu(network.more(batch), torch.bfloat16) for batch in batches]
    with torch.inference_mode():
        try:
            if not options.no_compile:
                peers[COMPILED] = compiled(half, inputs)
        except Exception as error:  # ours against the rest
            peers[COMPILED] = reason(error)
    say(ready=options.network)
    sys.stdin.readline()
    for batch in batches:
        try:
            say(row={"model": options.network, **time_batch(network, batch, peers)})
        except Exception as error:
            say(row={"model": options.network, "batch": batch, "failed": {"all": reason(error)}})


if __name__ == "__main__":
    main()
