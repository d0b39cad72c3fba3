"""dead_code: what no output needs goes: operators, tensors, submodules."""

from __future__ import annotations

from torch import fx, nn

from fastinfer.graph.match import TENSORS, attribute, finish
from fastinfer.program import Program


def dead_code(program: Program) -> int:
    """Remove operators without users, and the tensors and submodules nothing names any more.

    Returns how many operators, tensors and submodules were removed.
    """
    graph_module = program.graph_module
    before = len(graph_module.graph.nodes)
    graph_module.graph.eliminate_dead_code()
    removed = before - len(graph_module.graph.nodes)
    removed += _drop_tensors(graph_module) + _drop_submodules(graph_module)
    if removed:
        finish(graph_module)
    return removed


def _drop_tensors(graph_module: fx.GraphModule) -> int:
    if TENSORS not in graph_module._modules:
        return 0
    used = {str(n.target) for n in graph_module.graph.nodes if n.op == "get_attr"}
    holder = graph_module.get_submodule(TENSORS)
    named = [*holder.named_parameters(remove_duplicate=False)]
    names = [name for name, _ in named]
    names += [name for name, _ in holder.named_buffers(remove_duplicate=False)]
    unused = [name for name in names if f"{TENSORS}.{name}" not in used]
    for name in unused:
        path, _, leaf = f"{TENSORS}.{name}".rpartition(".")
        delattr(attribute(graph_module, path), leaf)
    return len(unused)


def _drop_submodules(graph_module: fx.GraphModule) -> int:
    used = {str(n.target) for n in graph_module.graph.nodes if n.op in ("call_module", "get_attr")}
    removed = 0

    def prune(parent: nn.Module, prefix: str) -> None:
        nonlocal removed
        for name, child in list(parent._modules.items()):
            path = f"{prefix}{name}"
            if path in used or child is None:
                continue
            if type(child) is nn.Module:  # a container: of Layers, or of tensors
                prune(child, f"{path}.")
                if child._modules or child._parameters or child._buffers:
                    continue
            else:
                removed += 1
            delattr(parent, name)

    prune(graph_module, "")
    return removed
