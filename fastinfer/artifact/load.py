"""load: a saved model, packed for the instruction set in force."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from fastinfer.artifact import container
from fastinfer.artifact.calls import read_call
from fastinfer.artifact.document import check_tensors, read_document
from fastinfer.artifact.errors import ArtifactError, NoDeviceError
from fastinfer.artifact.graphs import attributes, graph_module, read_graph
from fastinfer.artifact.modules import ModuleReader
from fastinfer.artifact.save import LOWERED, MODEL
from fastinfer.artifact.tensors import read_tensors
from fastinfer.artifact.values import read_data
from fastinfer.engine import CudaGraphs, CudaRecorder, RegionModule, Source
from fastinfer.nn.converted_module import ConvertedModule, InferenceModule, ModulePath
from fastinfer.nn.device_arguments import put_on
from fastinfer.nn.packed_module import check_target
from fastinfer.nn.shared_graph import SharedGraph
from fastinfer.report import Report
from fastinfer.runtime import require_kernels
from fastinfer.types.region import Region


def load(path: str | os.PathLike[str], *, map_location: Any = None) -> nn.Module:
    """Return the converted model that `fastinfer.save` wrote, with the same bits in its answers.

    Nothing in the artifact is run or imported: a graph may only call the operators on a list.
    Calls that the graph does not hold for are a ValueError, because the float model is not in it.

    Args:
        path: a directory or a ".fastinfer" file.
        map_location: "cpu", "cuda", "cuda:1" or a torch.device: where the model is to run. None:
            on the kind of device that it was saved on. The answers' integers are the same.

    Raises:
        FileNotFoundError: nothing is at path.
        ArtifactError: it is no artifact, damaged, incomplete, of a newer version, or holds what
            this release or this torch does not know.
        ValueError: another map_location.
        RuntimeError: torch sees no such GPU, or there are no kernels for it.
    """
    _check_location(map_location)
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"load: path: expected a path, got {type(path).__name__}")
    require_kernels()
    model_json, read_file = container.read(Path(path))
    document = read_document(model_json)
    try:
        wanted = document["tensors"]
        data = read_file(wanted["file"], wanted["bytes"])
        check_tensors(document, data)
        with torch.no_grad():
            tensors = read_tensors(data, wanted["table"])
            device = _target(map_location, document)
            return _build(document, {k: t.to(device) for k, t in tensors.items()}, device)
    except (ArtifactError, MemoryError, OSError, NoDeviceError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        # The checksum is right, so this was not made by `save`, or by one of another torch: any of
        # torch's constructors may refuse what it says, each in its own way.
        raise ArtifactError(
            f"load: expected an artifact of fastinfer {document.get('fastinfer')} and torch "
            f"{document.get('torch')} to be readable here, got {type(error).__name__}: {error}"
        ) from error


def _check_location(map_location: Any) -> None:
    try:
        known = map_location is None or (
            isinstance(map_location, (str, torch.device))
            and torch.device(map_location).type in ("cpu", "cuda")
        )
    except RuntimeError:  # a string that names no device
        known = False
    if not known:
        raise ValueError(
            "load: map_location: expected None, 'cpu', 'cuda' or a torch.device of these, got "
            f"{map_location!r}; packed weights run on cpu and cuda only"
        )


def _target(map_location: Any, document: Mapping[str, Any]) -> torch.device:
    """Return the device to load on, after a look whether it can be."""
    if map_location is not None:
        target = torch.device(map_location)
    else:
        target = torch.device("cuda" if document.get("device") == "cuda" else "cpu")
    if target.type == "cpu":
        return target
    fix = "give map_location='cpu' to run it there"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = target.index
    if count == 0 or (index or 0) >= count:
        raise NoDeviceError(
            f"load: map_location: expected a GPU for {str(target)!r}, and torch sees {count}; {fix}"
        )
    target = torch.device("cuda", torch.cuda.current_device() if index is None else index)
    try:
        check_target("load", target)
    except RuntimeError as error:
        raise NoDeviceError(f"{error}; or {fix}") from error
    return target


def _build(
    document: Mapping[str, Any], tensors: Mapping[str, Tensor], device: torch.device
) -> InferenceModule:
    report = Report.from_dict(read_data(document["report"]))
    modules = ModuleReader(tensors)
    if document["kind"] == "modules":
        return ModulePath(modules.read(document["model"], MODEL), report)
    if document["kind"] != "graph":
        raise ArtifactError(f"load: expected a graph or modules, got {document['kind']!r}")
    model = document["model"]
    call = read_call(model["call"])
    places = _Places(modules, tensors)
    lowered = places.read(model["lowered"])
    regions = None
    if model["regions"] is not None:
        regions = places.read(model["regions"], lowered)
    n_inputs = len(lowered.graph.find_nodes(op="placeholder"))
    if n_inputs != len(call.tensor_inputs):
        raise ArtifactError(f"load: expected {len(call.tensor_inputs)} inputs, got {n_inputs}")
    for graph in (lowered, *([] if regions is None else [regions])):
        put_on(graph, device)
    graphs = CudaGraphs(report.note, CudaRecorder())
    return ConvertedModule(lowered, call.on(device), report, None, regions, graphs)


class _Places:
    """Makes graphs again over the same tensors and modules, each of which is made once."""

    def __init__(self, modules: ModuleReader, tensors: Mapping[str, Tensor]) -> None:
        self._modules, self._tensors = modules, tensors
        self._parameters: dict[str, nn.Parameter] = {}

    def read(self, row: Mapping[str, Any], lowered: fx.GraphModule | None = None) -> fx.GraphModule:
        """Return the graph of what `save` wrote for one, which shares its tensors with lowered."""
        parts: dict[str, nn.Module | Tensor] = {
            name: self._tensor(stored, is_parameter)
            for name, (stored, is_parameter) in row["tensors"].items()
        }
        for name, module in row["modules"].items():
            if "region" in module:
                if lowered is None:
                    raise ArtifactError(f"load: {name}: expected no region inside a region")
                parts[name] = self._region(module, lowered)
            else:
                parts[name] = self._modules.read(module, f"{LOWERED}.{name}")
        made = graph_module(read_graph(row["nodes"]), parts)
        if lowered is None:
            return made
        shared = SharedGraph(made, made.graph)
        shared.share_tensors(lowered)
        return shared

    def _tensor(self, name: str, is_parameter: bool) -> Tensor:
        tensor = self._tensors[name]
        if not is_parameter:
            return tensor
        if name not in self._parameters:
            self._parameters[name] = nn.Parameter(tensor, requires_grad=False)
        return self._parameters[name]

    def _region(self, row: Mapping[str, Any], lowered: fx.GraphModule) -> RegionModule:
        region = Region.from_text(row["region"])
        names = row["names"]
        if len(names) != len(region.steps) or not all(isinstance(name, str) for name in names):
            raise ArtifactError(f"load: expected a name for each of {len(region.steps)} steps")
        graph = self.read(row["graph"], lowered)
        sources = [self._source(source, graph) for source in row["sources"]]
        return RegionModule(region, sources, graph, names)

    def _source(self, row: Mapping[str, Any], graph: fx.GraphModule) -> Source:
        if "tensor" in row:
            if row["tensor"] not in attributes(graph, "get_attr"):
                raise ArtifactError(f"load: a region's graph names no tensor {row['tensor']!r}")
            path, _, name = row["tensor"].rpartition(".")
            return graph.get_submodule(path), name
        module, name = self._modules.modules[row["module"]], row["name"]
        if name not in module._buffers:
            raise ArtifactError(f"load: {row['module']}: there is no {name!r} for a region to read")
        return module, name
