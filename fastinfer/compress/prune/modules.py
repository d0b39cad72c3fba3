"""Pruning a model that cannot be captured: leaf layers by hooks, on the dense net's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastinfer.compress.prune.geometry import Geometry
from fastinfer.compress.prune.layers import LEAST_INPUTS, is_ignored
from fastinfer.compress.prune.resident import Peak
from fastinfer.compress.prune.solve import Grams
from fastinfer.compress.prune.walk import add_rows, empty_grams
from fastinfer.types.call import Call

#: Bytes of Grams held in one pass over the data; more layers take more passes.
GRAM_BYTES = 2**30

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def leaf_layers(model: nn.Module, ignore: Sequence[str]) -> dict[str, tuple[nn.Module, str]]:
    """Return the layers by name, each with the reason to leave it dense, "" for none."""
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    found: dict[str, tuple[nn.Module, str]] = {}
    for name, module in model.named_modules():
        if not isinstance(module, _LAYERS):
            continue
        weight = module._parameters.get("weight")
        reason = "ignored" if is_ignored(name, ignore) else ""
        if weight is None:
            found[name] = module, "its weight is computed"
            continue
        k = weight[0].numel()
        if not reason and k < LEAST_INPUTS:
            reason = f"few inputs: {k} of a channel"
        if not reason and max(owners[id(p)] for p in module.parameters(recurse=False)) > 1:
            reason = "its weight is used elsewhere too"
        found[name] = module, reason
    kept = [name for name, (_, reason) in found.items() if not reason]
    # By their order in the model, which is all that is known of a model without a graph.
    names = list(found)
    if kept and kept[0] == names[0] and not isinstance(found[kept[0]][0], nn.Linear):
        found[kept[0]] = found[kept[0]][0], "the first convolution"
    if len(kept) > 1 and kept[-1] == names[-1]:
        found[kept[-1]] = found[kept[-1]][0], "the last layer"
    return found


def layer_geometry(module: nn.Module) -> Geometry | None:
    """Return a layer's geometry; None for padding that is not zeros."""
    if isinstance(module, nn.Linear):
        return Geometry("linear")
    assert isinstance(module, (nn.Conv1d, nn.Conv2d))
    if module.padding_mode != "zeros":
        return None
    axes = len(module.kernel_size)
    lead = ((0, 0),) if axes == 1 else ()
    if module.padding == "same":
        totals = [d * (k - 1) for k, d in zip(module.kernel_size, module.dilation, strict=True)]
        sides = (*lead, *((t // 2, -(-t // 2)) for t in totals))
    elif module.padding == "valid":
        sides = ((0, 0), (0, 0))
    else:
        sides = (*lead, *((int(p), int(p)) for p in module.padding))
    ones = (1,) if axes == 1 else ()
    stride, dilation = (*ones, *module.stride), (*ones, *module.dilation)
    return Geometry("conv", stride, sides, dilation, module.groups)  # type: ignore[arg-type]


@torch.no_grad()
def module_grams(
    model: nn.Module, layers: dict[str, nn.Module], calls: Sequence[Call], peak: Peak
) -> dict[str, list[Grams]]:
    """Return the Grams of layers from calls of the model; none for a layer that is never called."""
    grams: dict[str, list[Grams]] = {}
    position = 0

    def observe(name: str, geometry: Geometry) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            weight = module.weight
            assert isinstance(weight, Tensor)
            x, batched = args[0], geometry.kind != "conv" or args[0].dim() == weight.dim()
            if not batched:
                x, output = x.unsqueeze(0), output.unsqueeze(0)
            found = grams.setdefault(name, empty_grams(geometry, weight))
            add_rows(found, geometry, x, output, weight, position, len(calls))
            peak.look()

        return hook

    handles = []
    for name, module in layers.items():
        geometry = layer_geometry(module)
        if geometry is not None:
            handles.append(module.register_forward_hook(observe(name, geometry)))
    try:
        for position, (args, kwargs) in enumerate(calls):  # noqa: B007 (hooks read it)
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return grams


def passes(layers: dict[str, nn.Module], limit: int = GRAM_BYTES) -> list[dict[str, nn.Module]]:
    """Return the layers in portions whose Grams fit the limit together, in bytes."""
    portions: list[dict[str, nn.Module]] = []
    used = limit
    for name, module in layers.items():
        weight = module.weight
        assert isinstance(weight, Tensor)
        k = weight[0].numel()
        size = 2 * 8 * k * (k + weight.shape[0])
        if used + size > limit:
            portions.append({})
            used = 0
        portions[-1][name] = module
        used += size
    return portions
