"""The float model behind a converted one: answers what the captured graph does not."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from torch import Tensor, nn


class FloatFallback:
    """A model kept without being a submodule: no state, no parameters of its own, no copy.

    Its modules are copies in eval mode; its tensors are the model's own, so keeping it costs no
    memory while the model lives. A write into them (an optimizer's step) is noticed.
    """

    def __init__(self, model: nn.Module) -> None:
        tensors = [*model.parameters(), *model.buffers()]
        try:
            self._module = copy.deepcopy(model, {id(t): t for t in tensors})
        except Exception:  # a model with a lock or a file cannot be copied, and is kept as it is
            self._module = model
        for module in self._module.modules():
            if module.training:
                module.training = False
        self._device: torch.device | None = None
        self._tensors = tensors
        self._versions = _versions(tensors)

    @property
    def module(self) -> nn.Module:
        """The copy that answers."""
        return self._module

    def on(self, device: torch.device) -> FloatFallback:
        """Return the same model for calls on another device, where it is copied at the first."""
        moved = copy.copy(self)
        moved._device = device
        return moved

    def __deepcopy__(self, memo: dict[int, Any]) -> FloatFallback:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the float model's answer.

        Raises RuntimeError when the model's tensors were written since it was converted.
        """
        if _versions(self._tensors) != self._versions:
            raise RuntimeError(
                "this call needs the float model, whose weights were changed after convert; "
                "convert it again"
            )
        if self._device is not None:
            self._module = copy.deepcopy(self._module).to(self._device)
            self._device = None
        with torch.no_grad():
            return self._module(*args, **kwargs)


def _versions(tensors: list[Tensor]) -> list[int]:
    """Return the write counters; inference tensors have none."""
    return [-1 if t.is_inference() else t._version for t in tensors]


def own_tensors(module: nn.Module, model: nn.Module) -> None:
    """Give module copies of the tensors it shares with model; ties inside module stay ties."""
    theirs = {t.untyped_storage().data_ptr() for t in _tensors(model) if t.numel()}
    copies: dict[tuple[Any, ...], Tensor] = {}
    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for name, tensor in table.items():
                if tensor is None or tensor.untyped_storage().data_ptr() not in theirs:
                    continue
                key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
                is_parameter = isinstance(tensor, nn.Parameter)
                copied = copies.setdefault((*key, is_parameter), _copied(tensor))
                table[name] = copied  # type: ignore[assignment]


def _tensors(model: nn.Module) -> itertools.chain[Tensor]:
    return itertools.chain(model.parameters(), model.buffers())


def _copied(tensor: Tensor) -> Tensor:
    copied = tensor.detach().clone()
    return nn.Parameter(copied, requires_grad=False) if isinstance(tensor, nn.Parameter) else copied
