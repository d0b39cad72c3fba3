"""What in a graph waits for the device, which a CUDA graph cannot hold."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from fastinfer.ops.spec import NAMESPACE

#: Operators whose result, or its shape, is a value that must come from the device first.
_WAITING = frozenset({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape})


def why_not_recordable(graph_module: fx.GraphModule, device_key: str = "CUDA") -> str:
    """Return what in a graph waits for the device, "" where nothing is known to.

    What torch's tags do not tell shows only when it is recorded.
    """
    for node in graph_module.graph.nodes:
        op: Any = node.target
        if node.op == "call_module":
            op = _op_of(graph_module.get_submodule(str(node.target)))
        if isinstance(op, OpOverload):
            reason = _why_not(op, node, device_key)
            if reason:
                return f"{node.name}: {reason}"
    return ""


def _op_of(module: torch.nn.Module) -> Any:
    """Return the op of a packed layer, also inside another module."""
    return next((m._op for m in module.modules() if hasattr(m, "_op")), None)


def _why_not(op: OpOverload, node: fx.Node, device_key: str) -> str:
    if op.namespace == NAMESPACE:
        name = op.name().partition(".")[0]
        if not torch._C._dispatch_has_kernel_for_dispatch_key(name, device_key):
            return f"{op._opname} has no {device_key} kernel here, and its reference waits for it"
        return ""
    waits = bool(_WAITING & set(op.tags))
    if op is torch.ops.aten.index.Tensor:  # by masks only
        waits = any(_is_mask(index) for index in node.args[1])  # type: ignore[union-attr]
    return f"{op} needs a value of the device" if waits else ""


def _is_mask(index: Any) -> bool:
    value = index.meta.get("val") if isinstance(index, fx.Node) else None
    return isinstance(value, Tensor) and value.dtype in (torch.bool, torch.uint8)
