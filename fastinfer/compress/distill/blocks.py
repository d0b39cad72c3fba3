"""The blocks a network is made of, by their modules' names."""

from __future__ import annotations

from torch import nn

#: Exactly these: a subclass (torchvision's Conv2dNormActivation) is a block of its own.
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def find_blocks(model: nn.Module) -> list[str]:
    """Return the names of modules that together hold every layer's weight once, in model order.

    Children of Sequential, ModuleList and ModuleDict are blocks, however deep such containers lie
    in each other: the residual blocks of ResNet, the layers of a transformer. Outside of containers
    single layers are, as a stem and a head. A module without a weight of two dimensions (ReLU,
    BatchNorm) or with embeddings only is none.
    """
    found: list[str] = []
    _collect(model, "", found)
    return found


def _collect(module: nn.Module, name: str, found: list[str]) -> None:
    in_container = type(module) in _CONTAINERS
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        if not _has_layer(child):
            continue
        if type(child) in _CONTAINERS or not (in_container or _is_layer(child)):
            _collect(child, path, found)
        else:
            found.append(path)


def _is_layer(module: nn.Module) -> bool:
    own = module.parameters(recurse=False)
    return any(p.dim() >= 2 for p in own) and not isinstance(module, nn.Embedding)


def _has_layer(module: nn.Module) -> bool:
    return any(_is_layer(child) for child in module.modules())
