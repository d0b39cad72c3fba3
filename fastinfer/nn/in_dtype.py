"""A packed layer inside a model of float16 or bfloat16."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastinfer.types.device import HALVES


class InDtype(nn.Module):
    """A layer that computes in float32, for code that hands it another dtype and wants it back.

    module: answers in float32. uint8 tensors go to it as they are. Attributes that this has not are
    the module's.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module
        self.dtype = dtype

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return module(x, residual) in this dtype."""
        x = x.to(torch.float32) if x.dtype in HALVES else x
        if residual is None:
            y: Tensor = self.module(x)
        else:
            y = self.module(x, residual.to(torch.float32))
        return y.to(self.dtype)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or "module" not in self.__dict__.get("_modules", {}):
                raise
            return getattr(self._modules["module"], name)
