"""How long callables take, measured side by side so that a slow moment hits all alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch

from fastinfer.measure.frames import with_room

#: Every function runs at least this often, however slow it is.
MIN_ROUNDS = 3
#: A round gives each function this share of its time budget, so quick ones run in bursts.
ROUND_SHARE = 0.1


@dataclass(frozen=True)
class Timing:
    """Milliseconds per call over `runs` calls."""

    median_ms: float
    p20_ms: float
    p80_ms: float
    runs: int

    @classmethod
    def from_samples(cls, samples_ms: list[float]) -> Timing:
        """Return the quantiles of one or more measurements."""
        if not samples_ms:
            raise ValueError("Timing: expected at least one measurement, got none")
        if len(samples_ms) == 1:
            return cls(samples_ms[0], samples_ms[0], samples_ms[0], 1)
        fifths = statistics.quantiles(samples_ms, n=5, method="inclusive")
        return cls(statistics.median(samples_ms), fifths[0], fifths[3], len(samples_ms))

    def to_dict(self) -> dict[str, Any]:
        """Return the timing as JSON-able data."""
        return asdict(self)


@contextmanager
def fixed_threads(threads: int | None) -> Iterator[int]:
    """Run with this many torch threads (None: as it is); afterwards the number is what it was."""
    before = torch.get_num_threads()
    if threads is not None and threads < 1:
        raise ValueError(f"fixed_threads: expected threads >= 1, got {threads}")
    torch.set_num_threads(before if threads is None else threads)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def time_interleaved(
    functions: Mapping[str, Callable[[], object]],
    *,
    min_time_s: float = 1.0,
    max_rounds: int = 1000,
    warmup: int = 2,
    threads: int | None = None,
    once: Collection[str] = (),
    enough: Callable[[Mapping[str, Sequence[float]]], bool] | None = None,
    device: torch.device | None = None,
) -> dict[str, Timing]:
    """Return a `Timing` per function, from rounds in which each runs in turn.

    In a round a function runs for about `min_time_s / 10`, at least once. Rounds go on until
    the functions ran for `min_time_s` each on average (at least 3 rounds, at most `max_rounds`).
    The cyclic garbage collector rests meanwhile. Calls that work on a GPU which is not named are
    timed with their synchronisation.

    Args:
        functions: what to call, by name; the result of a call is dropped.
        min_time_s: seconds per function.
        max_rounds: upper bound of the number of rounds.
        warmup: calls of each function before the clock counts.
        threads: torch threads while timing (restored afterwards), or None to leave them.
        once: names of functions so slow that one call must do, the first; their `runs` is 1.
        enough: from the milliseconds so far, by name, whether they do; asked after each round from
            the third on.
        device: of all functions' work; a call is then timed by events on its current stream.

    Raises:
        ValueError: no function, or a bound below what makes sense.
    """
    if not functions:
        raise ValueError("time_interleaved: expected at least one function, got none")
    if min_time_s < 0 or max_rounds < 1 or warmup < 0:
        raise ValueError(
            "time_interleaved: expected min_time_s >= 0, max_rounds >= 1 and warmup >= 0, "
            f"got {min_time_s}, {max_rounds}, {warmup}"
        )

    def measure() -> dict[str, list[float]]:
        return _samples(functions, min_time_s, max_rounds, warmup, once, enough, _clock(device))

    with fixed_threads(threads), _resting_collector(), on_device(device):
        samples = with_room(measure)
    return {name: Timing.from_samples(values) for name, values in samples.items()}


def _samples(
    functions: Mapping[str, Callable[[], object]],
    min_time_s: float,
    max_rounds: int,
    warmup: int,
    once: Collection[str],
    enough: Callable[[Mapping[str, Sequence[float]]], bool] | None,
    run_ms: Callable[[Callable[[], object]], float],
) -> dict[str, list[float]]:
    """Return milliseconds a call, by function; the arguments are those of `time_interleaved`."""
    samples: dict[str, list[float]] = {name: [] for name in functions}
    bursts: dict[str, int] = {}
    for name, function in functions.items():
        if name in once:
            samples[name].append(run_ms(function))
            continue
        for _ in range(warmup):
            function()
        once_s = run_ms(function) / 1e3
        bursts[name] = max(1, round(ROUND_SHARE * min_time_s / max(once_s, 1e-7)))
    deadline = time.perf_counter() + min_time_s * len(bursts)
    for done in range(1, max_rounds + 1):
        for name, burst in bursts.items():
            for _ in range(burst):
                samples[name].append(run_ms(functions[name]))
        if done < MIN_ROUNDS:
            continue
        if time.perf_counter() >= deadline or (enough is not None and enough(samples)):
            break
    return samples


def device_of(tensors: Iterable[torch.Tensor]) -> torch.device | None:
    """Return the GPU that a tensor is on, None where all are on the CPU."""
    return next((t.device for t in tensors if t.device.type == "cuda"), None)


def on_device(device: torch.device | None) -> AbstractContextManager[Any]:
    """Make a GPU the current one; None leaves it."""
    is_gpu = device is not None and device.type == "cuda"
    return torch.cuda.device(device) if is_gpu else nullcontext()


def _clock(device: torch.device | None) -> Callable[[Callable[[], object]], float]:
    """Return what measures the milliseconds of one call."""
    if device is not None and device.type == "cuda":
        return event_ms
    barrier = torch.cuda.synchronize if torch.cuda.is_initialized() else None
    return lambda function: _run_ms(function, barrier)


def event_ms(function: Callable[[], object]) -> float:
    """Return the milliseconds of one call on the current stream, by events round it."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    function()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def _run_ms(function: Callable[[], object], barrier: Callable[[], None] | None) -> float:
    if barrier is not None:
        barrier()
    start = time.perf_counter_ns()
    function()
    if barrier is not None:
        barrier()
    return (time.perf_counter_ns() - start) / 1e6


@contextmanager
def _resting_collector() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
