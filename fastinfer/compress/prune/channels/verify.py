"""Runs a pruned copy against the dense model with the same channels at zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from fastinfer.compress.prune.channels.groups import Structure
from fastinfer.compress.prune.channels.surgery import Attributes, Removed, without
from fastinfer.graph.match import arguments, tensor_name
from fastinfer.types.call import Call, CallSpec

#: Largest difference, as a share of the largest output. In float64 sums in another order differ by
#: 1e-13 or so after a hundred layers; a channel that got into a wrong place, even one scaled by
#: ConvNeXt's 1e-6, by far more than 1e-9. In float32 likewise.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}


def difference(
    model: nn.Module,
    graph_module: fx.GraphModule,
    spec: CallSpec,
    structure: Structure,
    removed: Removed,
    attributes: Attributes,
    call: Call,
) -> str:
    """Return in what the pruned copy differs from the masked dense model, "" when in nothing.

    The pruned copy runs the user's own code. The other side runs the captured graph with every
    removed slice at zero, and norms over channels taking statistics of those that are kept.
    """
    reason = ""
    for dtype, tolerance in TOLERANCE.items():
        args, kwargs = _cast(call, dtype)
        with torch.no_grad():
            try:
                wanted = _MaskedModel(graph_module, structure, removed, dtype)(
                    *(spec.flatten(args, kwargs) or ())
                )
            except RuntimeError:  # code that insists on float32
                continue
            try:
                got = without(model, removed, attributes, dtype=dtype).eval()(*args, **kwargs)
            except Exception as error:  # whatever the user's code raises on the smaller sizes
                reason = f"the pruned copy fails: {type(error).__name__}: {_first_line(error)}"
                if dtype == torch.float64 and "dtype" in str(error):
                    continue
                return reason
        return _compare(wanted, pytree.tree_leaves(got), tolerance)
    return reason or "the captured graph does not run with zeroed channels"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:160]


def _cast(call: Call, dtype: torch.dtype) -> Call:
    def cast(leaf: Any) -> Any:
        is_float = isinstance(leaf, Tensor) and leaf.is_floating_point()
        return leaf.to(dtype) if is_float else leaf

    args, kwargs = pytree.tree_map(cast, call)
    return tuple(args), kwargs


def _compare(wanted: list[Any], got: list[Any], tolerance: float) -> str:
    tensors = [leaf for leaf in got if isinstance(leaf, Tensor)]
    expected = [leaf for leaf in wanted if isinstance(leaf, Tensor)]
    shapes = [list(t.shape) for t in tensors], [list(t.shape) for t in expected]
    if shapes[0] != shapes[1]:
        return f"the pruned copy answers {shapes[0]}, not {shapes[1]}"
    for mine, reference in zip(tensors, expected, strict=True):
        if not reference.is_floating_point():
            continue
        scale = float(reference.abs().max()) if reference.numel() else 0.0
        worst = float((mine - reference).abs().max()) if reference.numel() else 0.0
        if not worst <= tolerance * max(scale, 1e-30):
            return f"the pruned copy is {worst / max(scale, 1e-30):.0e} of the output off"
    return ""


class _MaskedModel(fx.Interpreter):
    """Runs the captured graph with removed slices at zero."""

    def __init__(
        self,
        graph_module: fx.GraphModule,
        structure: Structure,
        removed: Removed,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(graph_module)
        self.structure, self.removed, self.dtype = structure, removed, dtype
        self.kept = _kept_by_norm(structure, removed)

    def __call__(self, *inputs: Any) -> list[Any]:
        return list(self.run(*inputs))

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "get_attr":
            return self._tensor(n)
        keep = self.kept.get(n)
        if keep is None:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        return _norm_of_kept(n, arguments(n), args, kwargs, torch.from_numpy(keep))

    def _tensor(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if not (isinstance(value, Tensor) and value.is_floating_point()):
            return value
        name = tensor_name(n)
        value = value.to(self.dtype)
        axes = [axis for removed, axis in self.removed if removed == name]
        if axes and name not in self.structure.found.statistics:
            value = value.clone()
            for axis in axes:
                value.index_fill_(axis, torch.from_numpy(self.removed[name, axis]), 0.0)
        return value


def _kept_by_norm(structure: Structure, removed: Removed) -> Mapping[fx.Node, NDArray[np.bool_]]:
    """Return for norms over channels of which some go, which are kept."""
    classes, found = structure.classes, structure.found
    gone = np.unique(
        np.concatenate(
            [np.zeros(0, np.int64)]
            + [classes.of(found.tensors[key])[indices] for key, indices in removed.items()]
        )
    )
    kept = {node: ~np.isin(classes.of(axis), gone) for node, axis in found.norms.items()}
    return {node: keep for node, keep in kept.items() if not keep.all()}


def _norm_of_kept(
    node: fx.Node, named: Mapping[str, Any], args: Any, kwargs: Any, keep: Tensor
) -> Tensor:
    values = dict(zip(named, args, strict=False)) | kwargs
    x = values["input"]
    weight, bias = values.get("weight"), values.get("bias")
    inner = x[..., keep]
    shape = (int(keep.sum()),)
    short_weight = None if weight is None else weight[keep]
    if "rms" in str(node.target):
        out = functional.rms_norm(inner, shape, short_weight, values.get("eps"))
    else:
        short_bias = None if bias is None else bias[keep]
        out = functional.layer_norm(inner, shape, short_weight, short_bias, values.get("eps", 1e-5))
    result = torch.zeros_like(x)
    result[..., keep] = out
    return result
