"""Applies removed indices: a copy of the model with smaller tensors, and modules that say so."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

#: (name of a tensor, axis) -> indices that go.
Removed = Mapping[tuple[str, int], NDArray[np.int64]]
#: (submodule, attribute) -> its new value.
Attributes = Mapping[tuple[str, str], int]


def without(
    model: nn.Module,
    removed: Removed,
    attributes: Attributes | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """Return a copy of the model without these indices of its tensors.

    Sizes that torch's own modules keep as attributes follow. Tensors that several modules share
    stay shared. The model is not touched, and what is removed is never copied.

    Args:
        model: any module; removed names its parameters and buffers.
        attributes: other attributes to set.
        dtype: what float tensors become; None leaves them.
    """
    memo: dict[int, object] = {}
    by_name: dict[str, dict[int, NDArray[np.int64]]] = {}
    for (name, axis), indices in removed.items():
        by_name.setdefault(name, {})[axis] = indices
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        axes = by_name.get(name, {})
        if not axes and dtype is None:
            continue
        memo[id(tensor)] = _smaller(tensor, axes, dtype)
    result = copy.deepcopy(model, memo)
    names = {id(module): name for name, module in model.named_modules()}
    originals = {name: module for module, name in ((m, names[id(m)]) for m in model.modules())}
    for name, module in result.named_modules():
        follow_sizes(originals[name], module)
    for (path, attribute), value in (attributes or {}).items():
        setattr(result.get_submodule(path), attribute, value)
    return result


def _smaller(
    tensor: Tensor,
    axes: Mapping[int, NDArray[np.int64]],
    dtype: torch.dtype | None,
) -> Tensor:
    value = tensor.detach()
    for axis, indices in axes.items():
        keep = torch.ones(value.shape[axis], dtype=torch.bool)
        keep[torch.from_numpy(indices)] = False
        value = value.index_select(axis, keep.nonzero().flatten().to(value.device))
    if dtype is not None and value.is_floating_point():
        value = value.to(dtype)
    if value.data_ptr() == tensor.data_ptr():
        value = value.clone()
    if not isinstance(tensor, nn.Parameter):
        return value
    return nn.Parameter(value, requires_grad=tensor.requires_grad)


def follow_sizes(original: nn.Module, module: nn.Module) -> None:
    """Set the sizes of one of torch's modules to those of its tensors."""
    if isinstance(module, _ConvNd):
        _follow_conv(original, module)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, _NormBase):
        held = module.weight if module.weight is not None else module.running_mean
        if held is not None:
            module.num_features = held.shape[0]
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        if module.weight is not None:
            module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.GroupNorm):
        if module.weight is not None:
            assert isinstance(original, nn.GroupNorm)
            per_group = original.num_channels // original.num_groups
            module.num_channels = module.weight.shape[0]
            module.num_groups = module.num_channels // per_group
    elif isinstance(module, nn.Embedding):
        module.embedding_dim = module.weight.shape[1]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.shape[0]


def _follow_conv(original: nn.Module, module: _ConvNd) -> None:
    assert isinstance(original, _ConvNd)
    first, second = module.weight.shape[:2]
    # Groups keep their size, so there are as many fewer as the first axis is shorter.
    if module.groups > 1:
        module.groups = original.groups * first // original.weight.shape[0]
    second *= module.groups
    transposed = isinstance(module, _ConvTransposeNd)
    module.in_channels, module.out_channels = (first, second) if transposed else (second, first)
