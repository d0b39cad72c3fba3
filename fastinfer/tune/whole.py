"""The whole model against the original: nothing slower is returned under "auto"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from fastinfer.config import Config
from fastinfer.measure.latency import device_of, time_interleaved
from fastinfer.types.call import Call, tensors_of

#: A result is slower than the original only when it is so by more than timings vary.
NOISE = 1.03
#: A result so many times as fast as the original, its slowest run against the quickest, is timed no
#: further.
CLEAR = 1.5


def time_whole(models: Mapping[str, nn.Module], *calls: Call) -> dict[str, float]:
    """Return milliseconds of "original" and "converted" for all calls, medians of rounds in turn.

    There are fewer rounds where "converted" is clearly the faster.
    """
    device = device_of(tensors_of(calls))

    def run(model: nn.Module) -> Callable[[], object]:
        return lambda: [model(*args, **kwargs) for args, kwargs in calls]

    with torch.inference_mode():
        timings = time_interleaved(
            {name: run(model) for name, model in models.items()},
            min_time_s=0.3,
            max_rounds=30,
            # On a CPU the call that finds out how long one takes does it. On a GPU the first calls
            # choose kernels, and the second becomes a CUDA graph.
            warmup=0 if device is None else 3,
            enough=_is_clear,
            device=device,
        )
    return {name: timing.median_ms for name, timing in timings.items()}


def _is_clear(samples: Mapping[str, Sequence[float]]) -> bool:
    return max(samples["converted"]) * CLEAR < min(samples["original"])


def loses(times: Mapping[str, float], config: Config) -> bool:
    """Return True where "converted" is to be undone: slower than "original", under "auto"."""
    is_timed = config.precision == "auto" and not config.allow_slower
    return is_timed and times["converted"] > times["original"] * NOISE
