"""BatchNorm statistics, which pruning makes wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastinfer.types.call import call


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the model's BatchNorms of any dimension."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


@torch.no_grad()
def reestimate_batch_norm(model: nn.Module, batches: Iterable[Any]) -> nn.Module:
    """Return the model with the running statistics of its BatchNorms taken from these batches.

    Weights that were pruned or rounded change what BatchNorms see, and statistics of the original
    then shift and scale it wrongly. The new ones are means over all batches, with nothing of the
    old; everything else in the model runs in eval mode meanwhile.

    Args:
        model: changed in place.
        batches: what the model is called with: tensors, tuples of arguments or dicts. No labels are
            needed; some hundred samples do.

    Raises:
        TypeError: model is no module.
        ValueError: there is no batch, or statistics came out NaN or infinite; then the old ones are
            in place again.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"reestimate_batch_norm: model: expected an nn.Module, got {type(model).__name__}"
        )
    if isinstance(batches, Tensor):
        raise TypeError(
            "reestimate_batch_norm: batches: expected an iterable of batches, got one tensor; put "
            "it in a list"
        )
    norms = [norm for norm in batch_norms(model) if norm.track_running_stats]
    modes = [(module, module.training) for module in model.modules()]
    kept = [(norm, norm.momentum, _statistics(norm)) for norm in norms]
    count = 0
    try:
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch: the mean of all batches
            norm.train()
        for batch in batches:
            call(model, batch)
            count += 1
        _check(count, norms)
    except BaseException:
        for norm, _, statistics in kept:
            for name, value in statistics.items():
                getattr(norm, name).copy_(value)
        raise
    finally:
        for norm, momentum, _ in kept:
            norm.momentum = momentum
        for module, mode in modes:
            module.training = mode
    return model


def _statistics(norm: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in norm.named_buffers(recurse=False)}


def _check(count: int, norms: list[_BatchNorm]) -> None:
    if not count:
        raise ValueError("reestimate_batch_norm: batches: expected at least one, got none")
    for norm in norms:
        for name in ("running_mean", "running_var"):
            if not bool(torch.isfinite(getattr(norm, name)).all()):
                raise ValueError(
                    f"reestimate_batch_norm: batches: expected finite activations, got a "
                    f"{name} with NaN or infinity"
                )
