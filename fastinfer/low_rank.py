"""factorize: layers as two of lower rank, where the converted pair is measured to be faster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastinfer.api import convert
from fastinfer.compress.prune.low_rank import factorize_layers
from fastinfer.measure import time_interleaved

#: A pair stays only when it is faster by more than what timings vary.
NOISE = 1.03
#: Seconds of timing for each layer and its pair.
SECONDS = 0.1


def factorize(
    model: nn.Module,
    example_inputs: Any,
    *,
    rank: int | float | None = None,
    energy: float | None = None,
    method: str = "svd",
    calibration: Iterable[Any] | None = None,
    ignore: Sequence[str] = (),
    round_to: int = 16,
    keep_only_faster: bool = True,
    example_kwargs: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Return a copy of the model in which layers of low rank are two layers each.

    See `fastinfer.compress.prune.low_rank.factorize_layers` for the arguments. With
    keep_only_faster each layer and its pair are converted and timed in turn on what the layer gets
    in the example, with the threads that torch has; the layer stays where the pair is not faster.

    Raises:
        TypeError, ValueError: a malformed request, before any work.
    """
    return factorize_layers(
        model,
        example_inputs,
        rank=rank,
        energy=energy,
        method=method,
        calibration=calibration,
        ignore=ignore,
        round_to=round_to,
        faster=is_faster_converted if keep_only_faster else None,
        example_kwargs=example_kwargs,
    )


def is_faster_converted(layer: nn.Module, pair: nn.Module, x: Tensor) -> bool:
    """Return whether the converted pair answers sooner than the converted layer."""
    with torch.inference_mode(False):
        one, two = (convert(module, x.clone()) for module in (layer, pair))
    with torch.inference_mode():
        times = time_interleaved({"one": lambda: one(x), "two": lambda: two(x)}, min_time_s=SECONDS)
    return times["two"].median_ms * NOISE < times["one"].median_ms
