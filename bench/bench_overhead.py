"""What the engine adds to its kernels, in microseconds a step: python bench/bench_overhead.py.

The engine's share of a region's call is what its kernels leave of it: the call in the engine, less
for each step the time of the thread that was in the step's kernel for longest. By the number of
steps that must stay below 1 us, for a network and for a chain of steps with next to nothing to do,
on one thread and on two. `call adds` counts from Python instead: the region's module, the
dispatcher and the results, too. Exits with 1 where the bar is missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from harness import results_path, show, write_json
from random_models import random_model

import fastinfer
from fastinfer import runtime
from fastinfer.engine import RegionModule
from fastinfer.measure import fixed_threads
from fastinfer.nn.converted_module import region_modules
from fastinfer.ops.int8_region import int8_region_ref
from fastinfer.types.region import Region, Step

#: Microseconds a step.
BAR = 1.0
CHAIN_STEPS = 200
WARMUP = 20


@dataclass(frozen=True)
class Workload:
    """A region's call, checked."""

    name: str
    call: Callable[[], Any]


def network(name: str) -> Workload:
    """Return a torchvision network's only region on one image."""
    model, calibration = random_model(name)
    fast = fastinfer.convert(model, calibration[:1], config="int8", calibration=[calibration])
    (region,) = [m for _, m in region_modules(fast) if isinstance(m, RegionModule)]
    x = calibration[:1]
    with torch.inference_mode():
        assert torch.equal(region(x), fast.lowered(x)[0]), name
    return Workload(name, lambda: region(x))


def chain() -> Workload:
    """Return a chain of look-ups of 128 values each."""
    steps = [Step("int8_lookup", i + 1, (i,), (0,)) for i in range(CHAIN_STEPS)]
    program = Region(1, CHAIN_STEPS + 1, (CHAIN_STEPS,), tuple(steps)).to_text()
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (1, 128), generator=generator, dtype=torch.uint8)
    table = torch.randperm(256, generator=generator).to(torch.uint8)
    op = torch.ops.fastinfer.int8_region.default
    assert torch.equal(op([x], [table], program)[0], int8_region_ref([x], [table], program)[0])
    return Workload(f"{CHAIN_STEPS} look-ups", lambda: op([x], [table], program))


def measure(work: Workload, threads: int, runs: int) -> dict[str, Any]:
    """Return the figures of one region on so many threads, microseconds."""
    plain, walls, engine, kernels = [], [], [], []
    with torch.inference_mode():
        for _ in range(WARMUP):
            work.call()
        for _ in range(runs):
            start = time.perf_counter_ns()
            work.call()
            plain.append((time.perf_counter_ns() - start) / 1e3)
            with runtime.recording() as calls:
                start = time.perf_counter_ns()
                work.call()
                walls.append((time.perf_counter_ns() - start) / 1e3)
            (call,) = calls
            engine.append(1e6 * call.seconds)
            kernels.append(1e6 * sum(step.kernel_seconds for step in call.steps))
    steps = len(call.steps)
    inside = [(e - k) / steps for e, k in zip(engine, kernels, strict=True)]
    fifths = quantiles(inside, n=5, method="inclusive")
    return {
        "region": work.name,
        "threads": threads,
        "steps": steps,
        "call us": median(plain),
        "recorded us": median(walls),
        "kernels us": median(kernels),
        "engine adds us a step": median(inside),
        "p20": fifths[0],
        "p80": fifths[3],
        "call adds us a step": median((w - k) / steps for w, k in zip(walls, kernels, strict=True)),
        "below 1 us": median(inside) < BAR,
        "runs": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="default: in bench/results")
    options = parser.parse_args()
    rows = []
    for work in (network("mobilenet_v2"), chain()):
        for count in options.threads:
            with fixed_threads(count):
                rows.append(measure(work, count, options.runs))
    show("What a region's call takes beside its kernels", rows)
    write_json(options.out or results_path("bench_overhead"), rows=rows)
    if not all(row["below 1 us"] for row in rows):
        sys.exit(f"bench_overhead: expected less than {BAR} us a step everywhere")


if __name__ == "__main__":
    main()
