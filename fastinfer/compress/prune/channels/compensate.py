"""Refits the layers that read fewer channels to the outputs they had before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastinfer.compress.gram import Gram, Moments
from fastinfer.compress.prune.channels.surgery import Removed
from fastinfer.compress.prune.geometry import Geometry
from fastinfer.compress.prune.modules import layer_geometry
from fastinfer.types.call import Call

#: Ridges as a share of the mean square of an input, from which held-out rows choose.
DAMPINGS = (0.3, 0.1, 0.03, 0.01, 0.001)
#: The one used where there is one batch only.
DAMPING = 0.1
#: Rows that do for each input of a layer: of large images there are that many in a few batches.
ROWS_PER_INPUT = 20
#: A layer with more inputs than this keeps its weights: its Gram matrix would take over 0.5 GB.
MOST_INPUTS = 8192


class _Reached(Exception):
    """The layer that was waited for has been called."""


@torch.no_grad()
def compensate(
    dense: nn.Module, pruned: nn.Module, removed: Removed, calls: Sequence[Call]
) -> dict[str, float]:
    """Refit the pruned model's layers in place, and return the error of each by name.

    In the order of their calls each layer that reads fewer channels gets the weights with which its
    inputs in the pruned model come closest to its outputs in the dense one, so errors made before
    it are mended too. A ridge pulls to the weights it has. The error is |wanted - given|² over
    |wanted|².

    Args:
        dense: the model before, in eval mode.
        pruned: the model after, in eval mode.
        removed: what went; axes 1 of layers' weights are what they read.
        calls: to calibrate on, as many as give enough rows; the last of those chooses the ridge.
    """
    names = [name for name in _order(pruned, calls[0]) if (f"{name}.weight", 1) in removed]
    errors = {}
    for name in names:
        layer = pruned.get_submodule(name)
        geometry = layer_geometry(layer)
        weight = layer.weight
        assert isinstance(weight, Tensor)
        if geometry is None or weight[0].numel() > MOST_INPUTS:
            continue
        gone = removed.get((f"{name}.weight", 0))
        grams: list[Gram] = []
        for call in calls:
            grams.append(_gram(dense, pruned, name, geometry, call, gone))
            enough = ROWS_PER_INPUT * weight[0].numel()
            if len(grams) > 1 and sum(gram.count for gram in grams) >= enough:
                break
        fitted = _fit(grams, geometry, weight, centred=layer.bias is not None)
        if fitted is not None:
            new, bias, errors[name] = fitted
            weight.copy_(new)
            if isinstance(layer.bias, Tensor) and bias is not None:
                layer.bias.copy_(bias)
    return errors


def _order(model: nn.Module, call: Call) -> list[str]:
    """Return layers that are called once, in the order of their calls."""
    called: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: called.append(name))
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d))
        and getattr(module, "groups", 1) == 1
    ]
    try:
        model(*call[0], **call[1])
    finally:
        for handle in handles:
            handle.remove()
    return [name for name in called if called.count(name) == 1]


def _gram(
    dense: nn.Module,
    pruned: nn.Module,
    name: str,
    geometry: Geometry,
    call: Call,
    gone: NDArray[np.int64] | None,
) -> Gram:
    """Return the Gram matrix of one call; gone are the outputs that the pruned layer has not."""
    y = _seen(dense, name, call)[1]
    layer = pruned.get_submodule(name)
    if gone is not None:
        axis = -1 if isinstance(layer, nn.Linear) else 1
        kept = np.delete(np.arange(y.shape[axis]), gone)
        y = y.index_select(axis, torch.from_numpy(kept))
    x = _seen(pruned, name, call)[0]
    weight = layer.weight
    assert isinstance(weight, Tensor)
    gram = Gram(weight[0].numel(), weight.shape[0])
    for _, rows, wanted in geometry.rows(x, y, weight):
        gram.add(rows, wanted)
    return gram


def _seen(model: nn.Module, name: str, call: Call) -> tuple[Tensor, Tensor]:
    """Return the layer's input and output in a call, which ends there."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.extend((inputs[0], output))
        raise _Reached

    handle = model.get_submodule(name).register_forward_hook(keep)
    try:
        model(*call[0], **call[1])
    except _Reached:
        pass
    finally:
        handle.remove()
    return seen[0], seen[1]


def _fit(
    grams: list[Gram], geometry: Geometry, weight: Tensor, *, centred: bool
) -> tuple[Tensor, Tensor | None, float] | None:
    """Return weight, bias and error of the best fit; None where the data are not finite."""
    start = geometry.matrices(weight)[0].double()
    dampings: tuple[float, ...] = (DAMPING,)
    if len(grams) > 1:
        known = grams[0].moments(*grams[1:-1], is_centred=centred)
        held_out = grams[-1].about(known)
        if not (known.is_finite and held_out.is_finite):
            return None
        candidates = {held_out.relative_error(_ridge(known, start, d)): d for d in DAMPINGS}
        dampings = (candidates[min(candidates)],)
    moments = grams[0].moments(*grams[1:], is_centred=centred)
    if not moments.is_finite or not bool(moments.hessian.any()):
        return None
    matrix = _ridge(moments, start, dampings[0])
    bias = moments.y_mean - matrix @ moments.x_mean if centred else None
    return geometry.weight([matrix], weight), bias, moments.relative_error(matrix)


def _ridge(moments: Moments, start: Tensor, damping: float) -> Tensor:
    """Return the matrix closest to the wanted outputs, pulled to start: [N, K] float64."""
    hessian = moments.hessian
    ridge = damping * float(hessian.diagonal().mean())
    damped = hessian + ridge * torch.eye(len(hessian), dtype=hessian.dtype)
    missing = moments.cross - start @ hessian
    step: Tensor = torch.linalg.solve(damped, missing.t())
    return start + step.t()
