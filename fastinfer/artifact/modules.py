"""Trees of modules as JSON: fastinfer's layers, torch's own, and torch.nn.Sequential of these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fastinfer.artifact.errors import ArtifactError
from fastinfer.artifact.layers import LAYERS, read_layer, write_layer
from fastinfer.artifact.tensors import TensorWriter
from fastinfer.artifact.torch_layers import TORCH_LAYERS
from fastinfer.artifact.values import read_value, write_value
from fastinfer.config import UnsupportedError

SEQUENTIAL = "Sequential"
_TORCH = {kind.__name__: kind for kind in TORCH_LAYERS}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class ModuleWriter:
    """Writes modules; one that stands in several places is written once and named in the others."""

    def __init__(self, tensors: TensorWriter) -> None:
        self._tensors = tensors
        self.names: dict[int, str] = {}

    def write(self, module: nn.Module, name: str) -> dict[str, Any]:
        """Return module as data; its tensors go to the writer of tensors under name.

        Raises:
            UnsupportedError: it, or a module in it, is of a class that cannot be stored.
        """
        if id(module) in self.names:
            return {"same_as": self.names[id(module)]}
        self.names[id(module)] = name
        _check_plain(module, name)
        kind = type(module)
        children: Mapping[str, nn.Module] = {}
        if LAYERS.get(kind.__name__) is kind:
            settings, tensors = write_layer(module)
            children = dict(module.named_children())
        elif kind in TORCH_LAYERS:
            values = {a: getattr(module, a) for a in TORCH_LAYERS[kind]}
            if "bias" in values:
                values["bias"] = module.bias is not None
            settings = {key: write_value(value, f"{name}.{key}") for key, value in values.items()}
            tensors = module.state_dict(keep_vars=True)
        elif kind is nn.Sequential:
            settings, tensors, children = {}, {}, dict(module.named_children())
        else:
            raise UnsupportedError(
                f"save: {name or 'the model'}: expected fastinfer's layers and torch's in "
                f"nn.Sequential, got {kind.__module__}.{kind.__qualname__}, whose code cannot be "
                "stored; save fast.state_dict(), and to read it convert the model again and call "
                "load_state_dict"
            )
        row: dict[str, Any] = {"class": kind.__name__, "settings": settings}
        row["tensors"] = {k: self._tensors.add(f"{name}.{k}", v) for k, v in tensors.items()}
        row["children"] = [[k, self.write(child, f"{name}.{k}")] for k, child in children.items()]
        return {key: value for key, value in row.items() if value or key == "class"}


def _check_plain(module: nn.Module, name: str) -> None:
    """Raise UnsupportedError where a module does more than its class says."""
    if any(getattr(module, hook, None) for hook in _HOOKS):
        raise UnsupportedError(
            f"save: {name or 'the model'}: expected no hooks, got some, which cannot be stored; "
            "remove them first"
        )
    if "forward" in vars(module):
        raise UnsupportedError(f"save: {name}: its forward was replaced, which cannot be stored")


class ModuleReader:
    """Makes modules again; tensors are those of the artifact by name."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self.modules: dict[str, nn.Module] = {}

    def read(self, row: dict[str, Any], name: str) -> nn.Module:
        """Return the module of what `ModuleWriter.write` made, in eval mode.

        Raises:
            ArtifactError: a class that an artifact may not name; also what a constructor raises.
        """
        if "same_as" in row:
            return self.modules[row["same_as"]]
        kind, settings = row["class"], row.get("settings", {})
        tensors = {key: self._tensors[stored] for key, stored in row.get("tensors", {}).items()}
        children = {key: self.read(c, f"{name}.{key}") for key, c in row.get("children", [])}
        if kind in LAYERS:
            module = read_layer(kind, settings, tensors, children)
        elif kind in _TORCH:
            module = _torch_layer(_TORCH[kind], settings, tensors, name)
        elif kind == SEQUENTIAL:
            module = nn.Sequential()
            for key, child in children.items():
                module.add_module(key, child)
        else:
            raise ArtifactError(
                f"load: {name}: expected a layer of fastinfer or torch, got class {kind!r}, which "
                "this release does not know; load it with the release that saved it"
            )
        self.modules[name] = module.eval()
        return module


def _torch_layer(
    kind: type[nn.Module], settings: dict[str, Any], tensors: Mapping[str, Tensor], name: str
) -> nn.Module:
    if set(settings) != set(TORCH_LAYERS[kind]):
        raise ArtifactError(f"load: {name}: expected settings {TORCH_LAYERS[kind]}, got {settings}")
    with torch.device("meta"):  # shapes only, so that a wrong size takes no memory
        module = kind(**{key: read_value(value) for key, value in settings.items()})
    wanted = module.state_dict()
    shapes = {key: (list(value.shape), value.dtype) for key, value in wanted.items()}
    got = {key: (list(value.shape), value.dtype) for key, value in tensors.items()}
    if shapes != got:
        raise ArtifactError(f"load: {name}: expected tensors {shapes}, got {got}")
    for key, tensor in tensors.items():
        if key in module._parameters:
            module._parameters[key] = nn.Parameter(tensor, requires_grad=False)
        else:
            module._buffers[key] = tensor
    return module
