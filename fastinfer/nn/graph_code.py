"""A lowered graph's code without nn.Module's attribute lookups."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

from torch import fx


class GraphCode:
    """Calls a graph module's code with each submodule reached through `_modules`.

    The code fx writes takes a submodule three levels down by three calls of nn.Module.__getattr__,
    which on MobileNetV2 at batch 1 is a twelfth of the time. Values, hooks and replaced submodules
    are as in `graph_module.forward`; modules with `takes_no_hooks` are called by their `forward`.
    Holds no module; copies and pickles write the code anew.
    """

    def __init__(self) -> None:
        self._source = ""
        self._function: Callable[..., Any] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> GraphCode:
        return GraphCode()

    def __reduce__(self) -> tuple[type[GraphCode], tuple[()]]:
        return GraphCode, ()

    def __call__(self, graph_module: fx.GraphModule, *args: Any) -> Any:
        """Return graph_module.forward(*args)."""
        if self._function is None or graph_module.code is not self._source:
            self._source = graph_module.code
            self._function = _compile(graph_module)
        return self._function(graph_module, *args)


def only_region(graph_module: fx.GraphModule) -> str | None:
    """Return the name of the region that is all of the graph, or None where the graph is more.

    A call of such a graph needs no code of it: between two calls of a model whose weights fill the
    caches, every Python frame is fetched from memory.
    """
    nodes = list(graph_module.graph.nodes)
    if [node.op for node in nodes] != ["placeholder", "call_module", "output"]:
        return None
    x, region, output = nodes
    is_all = region.args == (x,) and not region.kwargs and list(output.args[0]) == [region]
    name = str(region.target)
    return name if is_all and hasattr(graph_module._modules.get(name), "answer") else None


def _compile(graph_module: fx.GraphModule) -> Callable[..., Any]:
    """Return forward(self, ...) of graph_module's graph."""
    named = copy.deepcopy(graph_module.graph)
    paths: dict[str, str] = {}
    for index, node in enumerate(n for n in named.nodes if n.op == "call_module"):
        path = "".join(f"._modules[{part!r}]" for part in str(node.target).split("."))
        if getattr(graph_module.get_submodule(str(node.target)), "takes_no_hooks", False):
            path += ".forward"
        node.target = f"fastinfer_module_{index}"
        paths[node.target] = f"self{path}"
    code = named.python_code("self")
    source = re.sub(r"\bself\.(fastinfer_module_\d+)\b", lambda m: paths[m[1]], code.src)
    scope: dict[str, Any] = dict(code.globals)
    exec(compile(source, "<fastinfer graph>", "exec"), scope)
    function: Callable[..., Any] = scope["forward"]
    return function
