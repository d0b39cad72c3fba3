"""Plain Python and torch values as JSON and back, types kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx
from torch.fx.immutable_collections import immutable_dict, immutable_list

from fastinfer.artifact.errors import ArtifactError
from fastinfer.config import UnsupportedError

DTYPES = {str(v).removeprefix("torch."): v for v in vars(torch).values() if type(v) is torch.dtype}
LAYOUTS = {"strided": torch.strided}
MEMORY_FORMATS = {
    str(v).removeprefix("torch."): v
    for v in vars(torch).values()
    if isinstance(v, torch.memory_format)
}
_NOT_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_NAMED: tuple[tuple[type, str], ...] = (
    (torch.dtype, "dtype"),
    (torch.layout, "layout"),
    (torch.memory_format, "memory_format"),
)


def write_value(value: Any, what: str) -> Any:
    """Return value as JSON data; what says in an error whose value it is.

    Numbers, text, None, tuples, lists, dicts, slices, nodes of a graph, and torch's dtypes,
    layouts, memory formats and devices. All tensors of a model are on one device, which `load`
    chooses, so that cpu stands for it.

    Raises:
        UnsupportedError: value is something else.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if type(value) in (list, immutable_list):
        return [write_value(v, what) for v in value]
    if type(value) is tuple:
        return {"tuple": [write_value(v, what) for v in value]}
    if type(value) in (dict, immutable_dict):
        return {"dict": [[write_value(k, what), write_value(v, what)] for k, v in value.items()]}
    if type(value) is slice:
        return {"slice": [write_value(v, what) for v in (value.start, value.stop, value.step)]}
    if type(value) is complex:
        return {"complex": [write_value(v, what) for v in (value.real, value.imag)]}
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, torch.device) and value.type in ("cpu", "cuda"):
        return {"device": "cpu"}
    for kind, name in _NAMED:
        if isinstance(value, kind):
            return {name: str(value).removeprefix("torch.")}
    raise UnsupportedError(
        f"save: {what}: expected numbers, text, None, tuples, lists, dicts or torch's dtypes, got "
        f"{type(value).__module__}.{type(value).__qualname__}, which cannot be stored as data"
    )


def read_value(data: Any, nodes: Mapping[str, fx.Node] | None = None) -> Any:
    """Return the value of what `write_value` made; nodes are those of the graph so far, by name.

    Raises:
        ArtifactError: data is not of its making.
    """
    if data is None or type(data) in (bool, int, float, str):
        return data
    if type(data) is list:
        return [read_value(v, nodes) for v in data]
    if type(data) is dict and len(data) == 1:
        ((kind, content),) = data.items()
        if kind == "node" and nodes is not None and content in nodes:
            return nodes[content]
        if kind in _READERS and kind != "node":
            return _READERS[kind](read_value(content, nodes))
    raise ArtifactError(f"load: expected a value, got {str(data)[:80]}")


def _device(name: str) -> torch.device:
    return {"cpu": torch.device("cpu")}[name]


#: Contents have been read already. A wrong one raises what `load` reports as a damaged artifact.
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "float": lambda name: _NOT_FINITE[name],
    "tuple": tuple,
    "dict": lambda items: {key: value for key, value in items},
    "slice": lambda ends: slice(*ends),
    "complex": lambda parts: complex(*parts),
    "device": _device,
    "dtype": lambda name: DTYPES[name],
    "layout": lambda name: LAYOUTS[name],
    "memory_format": lambda name: MEMORY_FORMATS[name],
}


def write_data(value: Any) -> Any:
    """Return a report's data for strict JSON: infinities marked, what JSON has not as text."""
    if isinstance(value, Mapping):
        return {str(key): write_data(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [write_data(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def read_data(data: Any) -> Any:
    """Return what `write_data` was given."""
    if isinstance(data, dict):
        if set(data) == {"float"} and data["float"] in _NOT_FINITE:
            return _NOT_FINITE[data["float"]]
        return {key: read_data(v) for key, v in data.items()}
    return [read_data(v) for v in data] if isinstance(data, list) else data
