"""How long calls take on a GPU: by events, as they will run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch

from fastinfer.engine import CudaRecorder
from fastinfer.engine.cuda_graphs import NotRecordedError
from fastinfer.measure.latency import event_ms

#: Calls in one CUDA graph: starting a graph takes as long as a small layer.
BURST = 10
#: Measurements of each call, in turn.
ROUNDS = 7
#: Calls that take longer, in milliseconds, are timed as they are and less often: what starts them
#: no longer counts, and layers of large batches would take the seconds of the budget.
LONG_MS, LONG_ROUNDS = 0.3, 3

Call = Callable[[], Any]


def gpu_race_ms(calls: Sequence[Call], device: torch.device, *, replayed: bool) -> list[float]:
    """Return the median milliseconds of each call, measured in turn.

    replayed: as part of a CUDA graph, which is how a captured model runs them; all one by one where
    one of them cannot be recorded, or where all take long.
    """
    with torch.cuda.device(device):
        timed, burst = list(calls), 1
        for call in timed:
            call()
        is_long = min(map(event_ms, timed)) > LONG_MS
        if replayed and not is_long:
            with suppress(NotRecordedError):
                timed, burst = [_replay(call, device) for call in calls], BURST
            for call in timed:
                call()
        samples: list[list[float]] = [[] for _ in timed]
        for _ in range(LONG_ROUNDS if is_long else ROUNDS):
            for call, mine in zip(timed, samples, strict=True):
                mine.append(event_ms(call) / burst)
    return [statistics.median(mine) for mine in samples]


def _replay(call: Call, device: torch.device) -> Call:
    """Return what runs BURST calls as one graph."""

    def burst() -> tuple[()]:
        for _ in range(BURST):
            call()
        return ()

    return CudaRecorder().record(burst, (), device).run
