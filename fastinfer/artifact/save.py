"""save: what `convert` returned, as data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import fx, nn

from fastinfer.artifact import container
from fastinfer.artifact.calls import write_call
from fastinfer.artifact.document import make_document, to_json
from fastinfer.artifact.graphs import attributes, write_graph
from fastinfer.artifact.modules import ModuleWriter
from fastinfer.artifact.tensors import TensorWriter
from fastinfer.artifact.values import write_data
from fastinfer.engine import RegionModule
from fastinfer.nn.converted_module import ConvertedModule, InferenceModule, ModulePath
from fastinfer.nn.converted_submodule import ConvertedSubmodule

#: The names a module's tensors have in the state_dict of the converted model begin so.
LOWERED, MODEL = "lowered", "model"


def save(fast: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a converted model to path: its graph, canonical weights, regions and report.

    A path that ends in ".fastinfer" is one file, any other a directory. What was there stays whole
    until the new one is. The float model is not in it: `load` answers what the graph holds for.
    Weights are stored as they are before a device packs them, so that any device can `load` them.

    Args:
        fast: what `fastinfer.convert` or `fastinfer.load` returned.
        path: new, an empty directory, or an artifact to replace; its folder exists.

    Raises:
        TypeError: fast is no converted model.
        UnsupportedError: a part of it is code of the user's, which cannot be stored as data.
        FileExistsError: something else is at path.
        OSError: it cannot be written.
    """
    if not isinstance(fast, InferenceModule):
        raise TypeError(
            "save: fast: expected a model returned by fastinfer.convert, got "
            f"{type(fast).__module__}.{type(fast).__qualname__}"
        )
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"save: path: expected a path, got {type(path).__name__}")
    tensors = TensorWriter()
    if isinstance(fast, ConvertedModule) and not isinstance(fast, ConvertedSubmodule):
        kind, model = "graph", _write_converted(fast, tensors)
    else:
        assert isinstance(fast, ModulePath)
        kind, model = "modules", ModuleWriter(tensors).write(fast.model, MODEL)
    data = tensors.to_bytes()
    report = write_data(fast._report.to_dict())
    document = make_document(kind, model, report, data, tensors.table, fast.device.type)
    container.write(Path(path), to_json(document), document["tensors"]["file"], data)


def _write_converted(fast: ConvertedModule, tensors: TensorWriter) -> dict[str, Any]:
    modules = ModuleWriter(tensors)
    return {
        "call": write_call(fast._call),
        "lowered": _write_graph_module(fast.lowered, modules, tensors),
        "regions": _write_graph_module(fast._regions[0], modules, tensors)
        if fast._regions
        else None,
    }


def _write_graph_module(
    graph_module: fx.GraphModule, modules: ModuleWriter, tensors: TensorWriter
) -> dict[str, Any]:
    """Return a graph, the tensors it reads and the modules it calls."""
    rows: dict[str, Any] = {}
    for name, module in attributes(graph_module, "call_module").items():
        if isinstance(module, RegionModule):
            rows[name] = _write_region(module, modules, tensors)
        else:
            rows[name] = modules.write(module, f"{LOWERED}.{name}")
    return {
        "nodes": write_graph(graph_module.graph),
        "tensors": {
            name: [tensors.add(f"{LOWERED}.{name}", value), isinstance(value, nn.Parameter)]
            for name, value in attributes(graph_module, "get_attr").items()
        },
        "modules": rows,
    }


def _write_region(
    region: RegionModule, modules: ModuleWriter, tensors: TensorWriter
) -> dict[str, Any]:
    """Return a region: its program, what that names by number, and the graph it stands for."""
    part = region.graph_module
    graph = _write_graph_module(part, modules, tensors)
    targets = {}
    for target in attributes(part, "get_attr"):
        path, _, name = target.rpartition(".")
        targets[id(part.get_submodule(path)), name] = target
    sources = [
        {"tensor": targets[id(module), name]}
        if (id(module), name) in targets
        else {"module": modules.names[id(module)], "name": name}
        for module, name in region.sources
    ]
    return {
        "region": region.region.to_text(),
        "names": list(region.names),
        "sources": sources,
        "graph": graph,
    }
