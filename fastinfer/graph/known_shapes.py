"""Ops that stand for torch's while a model is traced: their shapes need no thought.

torch finds the shape of a batch norm by its decomposition, with symbolic sizes: 0.2 to 0.4 s of the
2.1 s that ResNet-50's capture took (torch 2.14.1, Granite Rapids). In eval mode it is its input's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_LIBRARY = torch.library.Library("fastinfer_capture", "DEF")
_LIBRARY.define(
    "batch_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean, "
    "Tensor? running_var, bool training, float momentum, float eps, bool cudnn_enabled) -> Tensor"
)
_LIBRARY.impl("batch_norm", torch.batch_norm, "CompositeExplicitAutograd")


@torch.library.register_fake("fastinfer_capture::batch_norm")
def _batch_norm_shape(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


_BATCH_NORM = torch.ops.fastinfer_capture.batch_norm.default

#: What each of them is in a graph.
MEANT = {_BATCH_NORM: torch.ops.aten.batch_norm.default}


def traced(func: Callable[..., Any]) -> Callable[..., Any]:
    """Return what is to be called in place of a torch function while a model is traced."""
    return _eval_batch_norm if func is F.batch_norm else func


def _eval_batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """torch.nn.functional.batch_norm, by the op above where batches leave no trace."""
    if training or running_mean is None or running_var is None:
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    return _BATCH_NORM(x, weight, bias, running_mean, running_var, False, momentum, eps,
                       torch.backends.cudnn.enabled)  # fmt: skip
