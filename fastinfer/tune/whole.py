"""The whole model against the original: nothing slower is returned under "auto"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from fastinfer.measure.latency import time_interleaved


def time_whole(
    models: Mapping[str, nn.Module], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, float]:
    """Return milliseconds of each model on the example, medians of interleaved rounds."""

    def call(model: nn.Module) -> Callable[[], object]:
        return lambda: model(*args, **kwargs)

    with torch.inference_mode():
        timings = time_interleaved(
            {name: call(model) for name, model in models.items()},
            min_time_s=0.3,
            max_rounds=30,
            warmup=1,
        )
    return {name: timing.median_ms for name, timing in timings.items()}
