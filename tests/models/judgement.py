"""How a converted model is compared with the original: form, finiteness, error, time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fastinfer.engine import RegionModule
from fastinfer.measure import time_interleaved
from fastinfer.measure.accuracy import ErrorSums
from fastinfer.nn import PackedModule

#: A measured ratio under 1 / NOISE is slower. convert keeps what is up to 3 % slower in its own
#: measurement; medians of a shared machine differ by some percent more from one to the next.
NOISE = 1.10
#: Measurements until one is within the noise: a slower model is slower in each.
TRIES = 3
SECONDS = 0.25

#: Parts of a detector that compute on images alone: the same input shapes in both models.
DENSE_PARTS = ("backbone", "rpn.head", "head")
#: Parts that compute on regions, which other parts chose by value.
REGION_PARTS = (
    "roi_heads.box_head",
    "roi_heads.box_predictor",
    "roi_heads.mask_head",
    "roi_heads.mask_predictor",
    "roi_heads.keypoint_head",
    "roi_heads.keypoint_predictor",
)


def tensors(value: Any) -> list[Tensor]:
    """Return the tensors of a structure, in order."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def check_form(wanted: Any, got: Any, *, free_counts: bool = False) -> None:
    """Assert that structures, types and shapes are equal and got is finite where wanted is.

    free_counts: the first dimension is a count of what the model found, and may differ.
    """
    wanted_spec = pytree.tree_structure(wanted)
    got_spec = pytree.tree_structure(got)
    assert wanted_spec == got_spec, f"structure: wanted {wanted_spec}, got {got_spec}"
    for want, have in zip(tensors(wanted), tensors(got), strict=True):
        assert want.dtype == have.dtype
        skipped = 1 if free_counts else 0
        assert want.dim() == have.dim()
        assert want.shape[skipped:] == have.shape[skipped:], f"{want.shape} != {have.shape}"
        assert bool(torch.isfinite(have).all()), "not finite"


def error(wanted: Any, got: Any) -> ErrorSums:
    """Return the error over all float tensors of both structures, as one vector."""
    sums = ErrorSums()
    for want, have in zip(tensors(wanted), tensors(got), strict=True):
        if want.is_floating_point():
            sums.add(want, have)
    return sums


@contextmanager
def _recorded(model: nn.Module, names: tuple[str, ...]) -> Iterator[dict[str, tuple[Any, Any]]]:
    """Fill a dict with (arguments, answer) of the named submodules' last call."""
    modules, seen = dict(model.named_modules()), {}

    def hook(name: str) -> Any:
        def keep(module: nn.Module, args: Any, answer: Any) -> None:
            seen[name] = (args, answer)

        return keep

    found = [n for n in names if n in modules]
    handles = [modules[n].register_forward_hook(hook(n)) for n in found]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def detector_error(model: nn.Module, fast: nn.Module, args: tuple) -> ErrorSums:
    """Return the error of everything a detector computes before it chooses.

    Which boxes are kept, and in which order, hangs on comparing scores: with random weights they
    are all but equal, and the last bit of one decides. So boxes of one model have no partner in
    the other, and what is compared is the tensors they are chosen from. Backbone and dense heads
    are compared from one call of each model on the image; the heads on regions get the regions of
    the original in both models.
    """
    copy = fast.model  # the user's own module, parts of it converted
    sums = ErrorSums()
    with (
        _recorded(model, DENSE_PARTS + REGION_PARTS) as wanted,
        _recorded(copy, DENSE_PARTS) as got,
    ):
        model(*args)
        copy(*args)
    parts = dict(copy.named_modules())
    for name in wanted:
        inputs, answer = wanted[name]
        have = got[name][1] if name in got else parts[name](*inputs)
        # Each part counts alike: features are many times as many numbers as scores.
        one = error(answer, have)
        assert not one.non_finite, name
        if one.signal:
            sums.signal += 1.0
            sums.noise += one.noise / one.signal
    return sums


def body_regions(fast: nn.Module) -> int:
    """Return how many regions a detector's body is run in; each layer outside of one counts too.

    The body is the backbone without its pyramid, whose up-sampling no step of the engine does.
    """
    part = fast.model.backbone
    names = [name for name, _ in part.lowered.named_modules()]
    prefix = "backbone.body." if any(n.startswith("backbone.body.") for n in names) else "backbone."
    modules = [m for m in part._regions[0].modules() if isinstance(m, RegionModule)]
    region_of = {id(layer): index for index, m in enumerate(modules) for layer in m._modules_of}
    layers = [
        m
        for name, m in part.lowered.named_modules()
        if name.startswith(prefix) and isinstance(m, PackedModule)
    ]
    found = {region_of.get(id(layer), f"outside {id(layer)}") for layer in layers}
    return len(found)


def ratio_of_times(model: nn.Module, fast: nn.Module, args: tuple) -> tuple[float, float, float]:
    """Return (eager ms, fast ms, eager / fast) of the best of some interleaved measurements."""
    best = (0.0, 0.0, 0.0)
    for _ in range(TRIES):
        timings = time_interleaved(
            {"eager": lambda: model(*args), "fast": lambda: fast(*args)},
            min_time_s=SECONDS,
            warmup=1,
        )
        eager, mine = timings["eager"].median_ms, timings["fast"].median_ms
        best = max(best, (eager, mine, eager / mine), key=lambda t: t[2])
        if best[2] >= 1 / NOISE:
            break
    return best
