"""Whether the modules of a graph are as they were: without hooks, and with the same tensors."""

from __future__ import annotations

from torch import fx

from fastinfer import runtime


class ModuleState:
    """The modules and tensors of a graph as they are now, to be asked about at every call."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        modules = list(graph_module.modules())
        self._namespaces = tuple(module.__dict__ for module in modules)
        self._slots = tuple(
            (module.__dict__, name, tensor)
            for module in modules
            for table in (module._parameters, module._buffers)
            for name, tensor in table.items()
            if tensor is not None
        )
        self._graph_module = graph_module
        self._code = graph_module.code
        # It borrows the tuples from this object.
        self._watch = runtime.require_kernels().ModuleWatch(self._namespaces, self._slots)

    def holds(self) -> bool:
        """Return True while no module has a hook or another tensor than it had."""
        return self._graph_module.code is self._code and bool(self._watch.holds())
