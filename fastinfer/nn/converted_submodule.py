"""A converted module in the place of a submodule, inside the user's own model."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from fastinfer.nn.converted_module import ConvertedModule, forward_with
from fastinfer.types.call import TensorInput

#: Python looks these up on the class, so __getattr__ cannot hand them on.
_PROTOCOLS = ("__len__", "__iter__", "__getitem__", "__contains__", "__reversed__", "__bool__")


class ConvertedSubmodule(ConvertedModule):
    """A converted module that the code around it may use as the original.

    Calls run on the graph. Every attribute it does not have itself is the float original's (its
    copy in `FloatFallback`, on the model's own tensors): `out_channels`, methods, children,
    `len()` and indexing. It passes for an instance of the original's class. Any call the graph does
    not hold for is the original's, with the original's answer or exception.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__") or "_fallback" not in self.__dict__:
                raise
            return getattr(self._fallback.module, name)

    def _refuse(self, tensor: Tensor, wanted: TensorInput) -> bool:
        return False

    def _run_fallback(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._fallback(*args, **kwargs)

    @classmethod
    def _class_for(
        cls, model: nn.Module | None, signature: inspect.Signature
    ) -> type[ConvertedModule]:
        kind = type(model)
        members: dict[str, Any] = {"forward": forward_with(signature, cls._answer)}
        members |= {name: _forwarded(name) for name in _PROTOCOLS if hasattr(kind, name)}
        # isinstance asks for the class after the type; type() and copies see the real one.
        members["__class__"] = property(lambda self: kind)
        return type("ConvertedSubmodule", (cls,), members)


def _forwarded(name: str) -> Callable[..., Any]:
    def forwarded(self: ConvertedSubmodule, *args: Any) -> Any:
        module = self._fallback.module
        return getattr(type(module), name)(module, *args)

    forwarded.__name__ = name
    return forwarded
