"""Pruning while training: masks by magnitude, made anew as a schedule says, and held between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fastinfer.compress.prune.hold import MaskHold
from fastinfer.compress.prune.masks import largest_kept
from fastinfer.compress.prune.schedule import CubicSchedule, pattern_at
from fastinfer.types.sparsity import NM, Pattern, Unstructured, named_pattern

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
#: Of every layer a global mask keeps at least this share: an empty layer cuts the network in two.
LEAST_KEPT = 0.01

#: Module name, pattern of names, or type.
Ignore = str | type[nn.Module]


class GradualPruner:
    """Prunes a model while it is trained: call `step()` after every optimizer step.

        pruner = fastinfer.GradualPruner(model, "nm64x2", 0.75, CubicSchedule(100, 2000, every=50))
        for batch in loader:
            ...
            optimizer.step()
            pruner.step()
        pruner.remove()

    `fastinfer.distill` and `fastinfer.finetune` do that with `pruner=`. A weight that was pruned
    stays so: it is zero, and thus of the least magnitude, when the next mask is made.

    Args:
        model: changed in place; weights of its linear layers and convolutions are pruned, but for
            depthwise ones, those with fewer inputs than an N:M group, and shared ones.
        pattern: by name ("unstructured", "2:4", "nm64", "nm64x2"), with `sparsity` the share of
            zeros at the end, or a pattern itself, and sparsity None.
        schedule: when masks are made, and how sparse.
        ignore: names, patterns of names ("layers.0.*") or types of modules that stay dense.
        dense_ends: the first convolution and the head stay dense too. The head is the last linear
            layer, unless that is in a ModuleList of equal blocks.
        scope: of unstructured masks: "global" compares weights of all layers, "layer" gives every
            layer the same sparsity. Other patterns are the same for every layer anyway.

    Raises:
        TypeError: model, schedule or an entry of ignore is of the wrong type.
        ValueError: no layer is left to prune, an entry of ignore names nothing, or pattern and
            sparsity do not fit.
    """

    def __init__(
        self,
        model: nn.Module,
        pattern: str | Pattern,
        sparsity: float | None,
        schedule: CubicSchedule,
        *,
        ignore: Sequence[Ignore] = (),
        dense_ends: bool = True,
        scope: Literal["global", "layer"] = "global",
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"GradualPruner: model: expected an nn.Module, got {type(model).__name__}"
            )
        if not isinstance(schedule, CubicSchedule):
            raise TypeError(f"GradualPruner: schedule: expected a CubicSchedule, got {schedule!r}")
        if scope not in ("global", "layer"):
            raise ValueError(f"GradualPruner: scope: expected 'global' or 'layer', got {scope!r}")
        self.model = model
        self.schedule = schedule
        self.pattern = _final_pattern(pattern, sparsity)
        if not schedule.initial <= 1 - self.pattern.density:
            raise ValueError(
                f"GradualPruner: schedule: expected initial <= the sparsity at the end, "
                f"{1 - self.pattern.density:g}, got {schedule.initial:g}"
            )
        self._scope = scope
        least_inputs = self.pattern.m if isinstance(self.pattern, NM) else 1
        self._weights = prunable_weights(model, ignore, dense_ends, least_inputs)
        self._hold = MaskHold(model, {})
        self.steps = 0

    @property
    def finished(self) -> bool:
        """True once sparsity is the one asked for."""
        return self.steps > self.schedule.end

    @property
    def masks(self) -> dict[str, Tensor]:
        """Parameter name -> bool mask in force; empty before the schedule starts."""
        return self._hold.masks

    @property
    def sparsity(self) -> float:
        """The share of zeros among all weights of pruned layers, 0..1."""
        total = sum(weight.numel() for weight in self._weights.values())
        kept = sum(int((weight != 0).sum()) for weight in self._weights.values())
        return 1 - kept / total

    def step(self) -> None:
        """Count an optimizer step, and make masks anew where the schedule says so."""
        if self.schedule.is_update(self.steps):
            final = 1 - self.pattern.density
            self._hold.update(self._masks(self.schedule.sparsity(self.steps, final)))
        self.steps += 1

    def remove(self) -> None:
        """Hold the masks no longer; the model stays as it is, with nothing of the pruner in it."""
        self._hold.remove()

    def state_dict(self) -> dict[str, Any]:
        """Return steps and masks, for `load_state_dict` of a pruner of the same settings."""
        return {"steps": self.steps, "masks": self.masks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken; masked weights become zero.

        Raises:
            ValueError: state is of other layers.
        """
        masks = state["masks"]
        if masks and set(masks) != set(self._weights):
            wrong = sorted(set(masks) ^ set(self._weights))
            raise ValueError(
                f"GradualPruner: state: expected masks of {len(self._weights)} layers that are "
                f"pruned here, got others; they differ in {wrong[:3]}"
            )
        self.steps = int(state["steps"])
        self._hold.update(masks)

    def __enter__(self) -> GradualPruner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    @torch.no_grad()
    def _masks(self, sparsity: float) -> dict[str, Tensor]:
        """Return the masks of this sparsity, by the squares of the weights."""
        pattern = pattern_at(self.pattern, sparsity)
        saliency = {name: weight.float().square() for name, weight in self._weights.items()}
        if isinstance(pattern, Unstructured) and self._scope == "global":
            return _global_masks(saliency, pattern.density)
        return {name: _layer_mask(values, pattern) for name, values in saliency.items()}


def _final_pattern(pattern: str | Pattern, sparsity: float | None) -> Pattern:
    if isinstance(pattern, (NM, Unstructured)):
        if sparsity is not None and abs(1 - pattern.density - sparsity) > 1e-6:
            raise ValueError(
                f"GradualPruner: sparsity: {pattern} has {1 - pattern.density:g}, got {sparsity}; "
                "pass None, or the pattern's name"
            )
        return pattern
    if not isinstance(pattern, str):
        raise TypeError(f"GradualPruner: pattern: expected a name or a pattern, got {pattern!r}")
    if sparsity is None:
        raise ValueError(f"GradualPruner: sparsity: expected one for pattern {pattern!r}, got None")
    return named_pattern(pattern, sparsity)


def _layer_mask(saliency: Tensor, pattern: Pattern) -> Tensor:
    """Return the mask of one layer's weight of any rank, [N, C, ...]."""
    if saliency.dim() == 2:
        return largest_kept(saliency, pattern)
    # Inputs of a group run in the order (taps, c); how many axes the taps have makes no difference.
    flat = saliency.flatten(2).unsqueeze(2)
    return largest_kept(flat, pattern).view_as(saliency)


def _global_masks(saliency: Mapping[str, Tensor], density: float) -> dict[str, Tensor]:
    """Return masks that keep a share `density` of all weights, those with the most saliency."""
    flat = {}
    for name, values in saliency.items():
        row = values.flatten().clone()
        row[row.topk(max(1, int(LEAST_KEPT * row.numel()))).indices] = torch.inf
        flat[name] = row
    joined = torch.cat(list(flat.values()))
    kept = torch.zeros_like(joined, dtype=torch.bool)
    kept[joined.topk(round(density * joined.numel())).indices] = True
    parts = torch.split(kept, [row.numel() for row in flat.values()])
    return {name: part.view_as(saliency[name]) for name, part in zip(saliency, parts, strict=True)}


def prunable_weights(
    model: nn.Module,
    ignore: Sequence[Ignore] = (),
    dense_ends: bool = True,
    least_inputs: int = 1,
) -> dict[str, Tensor]:
    """Return parameter name -> weight of the layers that may be pruned, in the model's order.

    Depthwise convolutions are not among them: no kernel gains from their zeros.

    Args:
        ignore, dense_ends: as of GradualPruner.
        least_inputs: a layer with fewer inputs to a channel stays dense.

    Raises:
        TypeError: an entry of ignore is neither text nor a type of module.
        ValueError: an entry names no module, or no layer is left.
    """
    modules = dict(model.named_modules())
    layers: dict[str, Any] = {
        name: module
        for name, module in modules.items()
        if isinstance(module, (nn.Linear, *CONVOLUTIONS))
        and isinstance(getattr(module, "weight", None), nn.Parameter)
    }
    dense = _ignored(modules, ignore) | (_ends(modules, layers) if dense_ends else set())
    tied: dict[int, int] = {}
    for module in modules.values():
        for parameter in module.parameters(recurse=False):
            tied[id(parameter)] = tied.get(id(parameter), 0) + 1
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        names[id(layer.weight)]: layer.weight
        for name, layer in layers.items()
        # A weight that an embedding also reads is a table of rows that must all be there.
        if name not in dense
        and not (getattr(layer, "groups", 1) > 1 and layer.weight.shape[1] == 1)
        and tied[id(layer.weight)] == 1
        and layer.weight[0].numel() >= least_inputs
    }
    if not found:
        raise ValueError(
            f"GradualPruner: model: expected linear layers or convolutions to prune, got "
            f"{len(layers)}, all dense by ignore={list(ignore)!r}, dense_ends={dense_ends}, "
            f"with fewer than {least_inputs} inputs, or shared"
        )
    return found


def _ignored(modules: Mapping[str, nn.Module], ignore: Sequence[Ignore]) -> set[str]:
    if isinstance(ignore, str):
        raise TypeError(f"GradualPruner: ignore: expected a sequence, got the string {ignore!r}")
    names: set[str] = set()
    for entry in ignore:
        if isinstance(entry, str):
            roots = {name for name in modules if fnmatch(name, entry)}
        elif isinstance(entry, type) and issubclass(entry, nn.Module):
            roots = {name for name, module in modules.items() if isinstance(module, entry)}
        else:
            raise TypeError(
                f"GradualPruner: ignore: expected names, patterns or module types, got {entry!r}"
            )
        if not roots:
            raise ValueError(
                f"GradualPruner: ignore: expected a name, pattern or type of a module, got "
                f"{entry!r}, which is none of this model's"
            )
        names |= {n for n in modules for root in roots if n == root or n.startswith(f"{root}.")}
    return names


def _ends(modules: Mapping[str, nn.Module], layers: Mapping[str, Any]) -> set[str]:
    """Return the names of the first convolution and of the head."""
    convolutions = [n for n, layer in layers.items() if isinstance(layer, CONVOLUTIONS)]
    linears = [n for n, layer in layers.items() if isinstance(layer, nn.Linear)]
    ends = set(convolutions[:1])
    if linears:
        parents = linears[-1].split(".")[:-1]
        above = (".".join(parents[:depth]) for depth in range(len(parents) + 1))
        if not any(isinstance(modules[name], nn.ModuleList) for name in above):
            ends.add(linears[-1])
    return ends
