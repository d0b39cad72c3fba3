"""Timing on a GPU: events round each call, the L2 cache flushed between them.

A flush that writes leaves L2 full of lines that go to memory while the call runs: each line that
the call touches pushes out another, so that up to 50 MB count that are not its own. A flush that
reads leaves lines that are dropped.
"""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

#: More than any L2 of today holds.
FLUSH_BYTES = 256 << 20


@dataclass(frozen=True)
class GpuTiming:
    """Microseconds of one call."""

    median: float
    p20: float
    p80: float
    runs: int


#: How L2 is flushed: with lines to be written, or with lines to be dropped.
WRITTEN, READ = "written", "read"


@cache
def _flush_buffer() -> torch.Tensor:
    return torch.zeros(FLUSH_BYTES // 4, dtype=torch.int32, device="cuda")


def flush_l2(how: str) -> None:
    """Push everything out of L2."""
    if how == WRITTEN:
        _flush_buffer().zero_()
    else:
        _flush_buffer().amax()


def time_call(
    call: Callable[[], Any], runs: int = 20, warm_up: int = 3, flush: str = WRITTEN
) -> GpuTiming:
    """Return how long a call takes on the device, with L2 flushed before it; nothing subtracted."""
    for _ in range(warm_up):
        call()
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(runs)]
    for start, end in events:
        flush_l2(flush)
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    times = sorted(1e3 * start.elapsed_time(end) for start, end in events)
    return GpuTiming(
        statistics.median(times), times[len(times) // 5], times[-1 - len(times) // 5], runs
    )


class NotCapturedError(RuntimeError):
    """A call that a CUDA graph cannot hold, and why."""


def capture(call: Callable[[], Any], warm_up: int = 3) -> tuple[Callable[[], None], Any]:
    """Return the replay of a CUDA graph of one call, and the result that it writes.

    The call first runs on a side stream, which is where what it compiles or tunes is done.

    Raises:
        NotCapturedError: if the call synchronises, or fails in capture for another reason.
    """
    side, here = torch.cuda.Stream(), torch.cuda.current_stream()
    side.wait_stream(here)
    with torch.cuda.stream(side):
        for _ in range(warm_up):
            call()
    here.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=side):
            result = call()
    except RuntimeError as error:
        torch.cuda.synchronize()
        raise NotCapturedError(f"not captured: {str(error)[:300]}") from error
    return graph.replay, result


def time_replay(call: Callable[[], Any], runs: int = 20, flush: str = WRITTEN) -> GpuTiming:
    """Return how long one call's kernels take, with cold L2: the events are round a graph's replay.

    No Python runs between the events, so a launcher written in it does not count; starting a graph
    does, as nothing is subtracted.

    Raises:
        NotCapturedError: if a graph cannot hold the call.
    """
    replay, _ = capture(call)
    return time_call(replay, runs, flush=flush)


def other_us(name: str, call: Callable[[], Any], reasons: dict[str, str]) -> float | None:
    """Return microseconds of another contender; None where it fails, the reason among `reasons`."""
    try:
        return time_replay(call, flush=READ).median
    except Exception as error:
        reasons[name] = f"{type(error).__name__}: {str(error)[:300]}"
        print(f"{name}: {reasons[name]}", flush=True)
        return None


def copy_us(count: int, flush: str = WRITTEN) -> float:
    """Return microseconds of a copy that reads and writes `count` bytes together, as a graph."""
    source = torch.zeros(max(count // 2, 1), dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    return time_replay(lambda: target.copy_(source), flush=flush).median


def copy_bandwidth() -> float:
    """Return GB/s of a large copy on the device, bytes read and written counted."""
    source = torch.empty(1 << 30, dtype=torch.int8, device="cuda").random_(0, 100)
    target = torch.empty_like(source)
    timing = time_call(lambda: target.copy_(source), runs=10)
    return 2 * source.numel() / timing.median * 1e-3


def highest_clock() -> float | None:
    """Return the multiprocessors' highest clock in Hz, as the driver tells it."""
    command = ["nvidia-smi", "--query-gpu=clocks.max.sm", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        return 1e6 * float(said.stdout.split()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def int8_peak() -> float | None:
    """Return int8 operations a second at the highest clock; a multiply-add is two.

    A multiprocessor of Hopper does 4096 multiply-adds a cycle, one of Ampere's A100 2048.
    """
    clock = highest_clock()
    if clock is None:
        return None
    per_cycle = {(9, 0): 8192, (8, 0): 4096}.get(torch.cuda.get_device_capability())
    if per_cycle is None:
        return None
    return torch.cuda.get_device_properties(0).multi_processor_count * per_cycle * clock
