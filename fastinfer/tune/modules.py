"""choose_modules: the module path, each layer timed on the input it saw in one call."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastinfer.config import Config
from fastinfer.graph.layer import Layer
from fastinfer.lower.lowerings import lower_layer
from fastinfer.lower.module_path import find_swaps, lower_modules
from fastinfer.report import Report
from fastinfer.tune.choose import NOISE, race_ms
from fastinfer.tune.gpu_race import gpu_race_ms
from fastinfer.tune.noise import noise
from fastinfer.tune.sparse_float import mostly_zero, sparse_times


def _record(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, tuple[int, ...]]:
    """Return the shape of the first float input of every module in one call, by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    handles = []
    for name, module in model.named_modules():

        def hook(module: nn.Module, inputs: tuple[Any, ...], name: str = name) -> None:
            if inputs and isinstance(inputs[0], Tensor):
                shapes.setdefault(name, tuple(inputs[0].shape))

        handles.append(module.register_forward_pre_hook(hook))
    try:
        with torch.no_grad():
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def choose_modules(
    model: nn.Module,
    config: Config,
    report: Report,
    *,
    args: tuple[Any, ...] | None = None,
    kwargs: dict[str, Any] | None = None,
    parts: Mapping[str, nn.Module | None] | None = None,
) -> nn.Module:
    """Return a copy of model with packed layers; under "auto" and with args only the faster ones.

    report gets a row for every layer. parts: modules in the place of submodules, as `with_parts`.
    """
    if args is None:
        return lower_modules(model, config, report, parts=parts)
    holder = nn.Module()
    holder.root = model
    shapes = _record(model, args, kwargs or {})
    times: dict[str, tuple[float, float]] = {}
    keep: dict[str, str] = {}
    known: dict[Any, tuple[float, float]] = {}
    floats: dict[str, Layer] = {}
    for swap in find_swaps(holder, config, shapes, parts or {}):
        shape = shapes.get(swap.name)
        if swap.layer is None or shape is None or 0 in shape:
            continue
        if swap.plan.precision == "fp32":
            floats[swap.name] = swap.layer
            continue
        key = (swap.layer.spec, shape)
        if key not in known:
            weight = swap.layer.weight
            x = noise(shape, weight)
            try:
                packed = lower_layer(swap.layer, swap.plan)
            except (ValueError, RuntimeError):
                continue  # lower_modules reports the reason
            try:
                known[key] = _race(swap.layer, packed, x)
            except RuntimeError as error:  # one layer's call; the others are worth converting
                keep[swap.name] = f"it failed when it was timed: {str(error).splitlines()[0]}"
                continue
        times[swap.name] = known[key]
        float_ms, fast_ms = known[key]
        if config.precision == "auto" and not config.allow_slower and fast_ms > float_ms * NOISE:
            keep[swap.name] = f"float is faster ({float_ms:.3f} against {fast_ms:.3f} ms)"
    sparse = sparse_times(mostly_zero(floats), {name: (s,) for name, s in shapes.items()})
    return lower_modules(
        model,
        config,
        report,
        keep_float=keep,
        times={**times, **sparse},
        shapes=shapes,
        parts=parts,
        sparse=sparse,
    )


@torch.inference_mode()
def _race(layer: nn.Module, packed: nn.Module, x: Tensor) -> tuple[float, float]:
    """Return the milliseconds of a layer and of its packed module, called with x."""
    calls = partial(layer, x), partial(packed, x)
    if not x.is_cuda:
        return race_ms(*calls, 0.02)
    # The user's own code calls them one by one.
    float_ms, fast_ms = gpu_race_ms(calls, x.device, replayed=False)
    return float_ms, fast_ms
