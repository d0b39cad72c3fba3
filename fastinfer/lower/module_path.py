"""The module path: leaf layers of the user's own module swapped for packed ones."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from fastinfer.compress.quantize.precision import (
    SPARSE_FLOAT,
    STATIC,
    choose_precision,
    is_ignored,
    requested_precision,
)
from fastinfer.compress.quantize.report_rows import layer_row
from fastinfer.graph.layer import Layer, LayerSpec
from fastinfer.lower.lowerings import lower_layer
from fastinfer.nn import InDtype, Int8Conv2dDynamic
from fastinfer.program import LayerPlan
from fastinfer.report import LayerReport, Report

SWAPPED = (nn.Linear, nn.Conv1d, nn.Conv2d)
#: Layers with weights that no op of ours serves, and why they stay.
KEPT: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.Conv3d, "3-D convolutions have no int8 op"),
    (nn.ConvTranspose1d, "transposed convolutions have no int8 op"),
    (nn.ConvTranspose2d, "transposed convolutions have no int8 op"),
    (nn.ConvTranspose3d, "transposed convolutions have no int8 op"),
    (nn.MultiheadAttention, "nn.MultiheadAttention reads its inner weights directly"),
    (nn.RNNBase, "recurrent layers read their inner weights directly"),
    (nn.Bilinear, "bilinear layers have no int8 op"),
)


@dataclass(frozen=True)
class Swap:
    """One layer of the copy: where it hangs, what it is, and what it may become.

    places are all (parent, attribute) pairs that hold the module; plan.precision is "fp32" when
    the layer stays.
    """

    name: str
    module: nn.Module
    places: tuple[tuple[nn.Module, str], ...]
    layer: Layer | None
    plan: LayerPlan

    def apply(self) -> None:
        """Put the packed module in every place."""
        assert self.layer is not None
        packed = lower_layer(self.layer, self.plan)
        packed.train(self.module.training)
        inner = packed.module if isinstance(packed, InDtype) else packed
        if isinstance(inner, Int8Conv2dDynamic):
            inner.keeps_layout = True  # the user's code between layers may take views
        for parent, attribute in self.places:
            setattr(parent, attribute, packed)


def _pair(value: int | tuple[int, ...], fill: int) -> tuple[int, int]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return (fill, values[0]) if len(values) == 1 else (values[0], values[1])


def _padding(module: nn.Conv1d | nn.Conv2d) -> tuple[int, int] | str:
    """Return the padding as numbers, or why it cannot be said in numbers."""
    if not isinstance(module.padding, str):
        return _pair(module.padding, 0)
    if module.padding == "valid":
        return (0, 0)
    total = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    if any(t % 2 for t in total):
        return "padding='same' is asymmetric here"
    return _pair(tuple(t // 2 for t in total), 0)


def as_layer(module: nn.Module) -> Layer | str:
    """Return a Linear, Conv1d or Conv2d as a Layer sharing its parameters, or why it is none."""
    if isinstance(module, nn.Linear):
        spec = LayerSpec("linear", module.out_features, module.in_features)
        return Layer(spec, module.weight, module.bias)
    assert isinstance(module, (nn.Conv1d, nn.Conv2d))
    if module.padding_mode != "zeros":
        return f"padding_mode={module.padding_mode!r} has no int8 op"
    padding = _padding(module)
    if isinstance(padding, str):
        return padding
    spec = LayerSpec(
        "conv1d" if isinstance(module, nn.Conv1d) else "conv2d",
        module.out_channels,
        module.in_channels,
        _pair(module.kernel_size, 1),
        _pair(module.stride, 1),
        padding,
        _pair(module.dilation, 1),
        module.groups,
    )
    return Layer(spec, module.weight, module.bias)


def _kept_because(module: nn.Module) -> str | None:
    """Return why a module that looks like a layer must stay as it is, or None."""
    for kind, reason in KEPT:
        if isinstance(module, kind):
            return reason
    if isinstance(module, SWAPPED):
        if type(module) not in SWAPPED:
            return f"{type(module).__name__} is a subclass with a meaning of its own"
        if "forward" in vars(module):
            return "its forward was replaced"
        hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        if any(getattr(module, name, None) for name in hooks):
            return "it has hooks"
        if module.weight is None or isinstance(module.weight, nn.UninitializedParameter):
            return "its weight is not initialized"
    return None


def _leaves(
    holder: nn.Module, parts: Collection[str]
) -> Iterator[tuple[str, nn.Module, tuple[tuple[nn.Module, str], ...]]]:
    """Yield (name, module, places) of every module under holder.root once.

    What is inside a kept module is not yielded, nor are parts, by name, and what is inside them.
    """
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    names: dict[int, tuple[str, nn.Module]] = {}

    def walk(parent: nn.Module, prefix: str) -> None:
        for attribute, child in parent._modules.items():
            if child is None:
                continue
            is_root = parent is holder
            first = id(child) not in places
            places.setdefault(id(child), []).append((parent, attribute))
            if first and (is_root or f"{prefix}{attribute}" not in parts):
                names[id(child)] = (f"{prefix}{attribute}" if not is_root else "model", child)
                if not any(isinstance(child, kind) for kind, _ in KEPT):
                    walk(child, "" if is_root else f"{prefix}{attribute}.")

    walk(holder, "")
    for key, (name, module) in names.items():
        yield name, module, tuple(places[key])


def find_swaps(
    holder: nn.Module,
    config: Any,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    parts: Collection[str] = (),
) -> list[Swap]:
    """Return every layer under holder.root with what it may become; nothing is changed.

    shapes: of each layer's input by name, where it was seen; parts: submodules left out.
    """
    swaps = []
    for name, module, places in _leaves(holder, parts):
        reason = _kept_because(module)
        layer: Layer | None = None
        if reason is None:
            if type(module) not in SWAPPED:
                continue
            if is_ignored(name, config):
                reason = "named in ignore"
            else:
                made = as_layer(module)
                layer, reason = (None, made) if isinstance(made, str) else (made, None)
        if layer is None:
            swaps.append(Swap(name, module, places, None, LayerPlan("fp32", reason=str(reason))))
            continue
        precision, why = choose_precision(name, layer, (shapes or {}).get(name), config)
        # Without a graph nothing knows a neighbour's scale: ranges are found at each call.
        precision = "int8-dynamic" if precision == STATIC else precision
        swaps.append(Swap(name, module, places, layer, LayerPlan(precision, reason=why)))
    return swaps


def open_fast_paths(root: nn.Module) -> None:
    """Make nn.TransformerEncoderLayer call its linears instead of reading their weights."""
    for module in root.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            # The fused path needs a known activation; the plain one gives the same result.
            module.activation_relu_or_gelu = 0


def with_parts(model: nn.Module, parts: Mapping[str, nn.Module | None]) -> nn.Module:
    """Return a copy of model with other modules in the place of submodules, by name.

    A module stands wherever the submodule stood: in every parent that shares it, and in lists of
    the user's own. None leaves a submodule as it is. The parts are not copied.
    """
    # deepcopy takes what is in its memo for a copy made already.
    memo = {id(model.get_submodule(n)): part for n, part in parts.items() if part is not None}
    return copy.deepcopy(model, memo)


def lower_modules(
    model: nn.Module,
    config: Any,
    report: Report,
    *,
    keep_float: Mapping[str, str] | None = None,
    times: Mapping[str, tuple[float, float]] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    parts: Mapping[str, nn.Module | None] | None = None,
    sparse: Collection[str] = (),
) -> nn.Module:
    """Return a copy of model with its leaf layers on packed weights; model is untouched.

    keep_float: reasons by name of layers to leave; times: (float, fast) milliseconds by name, for
    the report, which gets a row for every layer. parts: as `with_parts`; they get no rows. sparse:
    names of float layers whose zeros are left out.
    """
    holder = nn.Module()
    holder.root = with_parts(model, parts or {})
    rows: list[LayerReport] = []
    if requested_precision(config) != "fp32" or sparse:
        open_fast_paths(holder)
    for swap in find_swaps(holder, config, shapes, parts or {}):
        if swap.name in sparse:
            swap = replace(swap, plan=replace(swap.plan, precision=SPARSE_FLOAT))
        kept = (keep_float or {}).get(swap.name)
        precision, reason = swap.plan.precision, swap.plan.reason
        if kept is not None:
            precision, reason = "fp32", kept
        if swap.layer is not None and precision != "fp32":
            try:
                swap.apply()
            except (ValueError, RuntimeError) as error:
                precision, reason = "fp32", str(error)
        float_ms, fast_ms = (times or {}).get(swap.name, (None, None))
        rows.append(
            layer_row(
                swap.name,
                swap.layer,
                precision,
                reason,
                float_ms=float_ms,
                fast_ms=fast_ms,
                module=swap.module,
            )
        )
    report.layers[:] = rows
    converted: nn.Module = holder.root
    return converted
