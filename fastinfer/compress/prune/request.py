"""A call of `prune`, checked before any work: what came, what was wanted, the fix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn

from fastinfer.compress.prune.solve import METHODS
from fastinfer.report import Report
from fastinfer.types.finite import all_finite

CHANNEL = "channel"


@dataclass(frozen=True)
class PruningRequest:
    """What `fastinfer.prune` was asked for; its docstring says what each is. Not checked yet."""

    pattern: str
    sparsity: float | None = None
    method: str = "obs"
    calibration: Iterable[Any] | None = None
    ignore: Sequence[str] = ()
    schedule: Any = None
    allocation: str = "uniform"


def check_model(model: object) -> nn.Module:
    """Return the model, or what torch.compile wrapped.

    Raises:
        TypeError: it is no eager nn.Module.
        ValueError: it, or a part of it, was converted; or it has no values.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"prune: model: expected an nn.Module, got {type(model).__name__}")
    if isinstance(model, torch._dynamo.OptimizedModule):
        model = model._orig_mod
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("prune: model: expected eager code, got TorchScript; pass the nn.Module")
    assert isinstance(model, nn.Module)
    for name, module in model.named_modules():
        if isinstance(getattr(module, "_report", None), Report):
            where = f"its submodule {name!r} is" if name else "it is"
            raise ValueError(
                f"prune: model: expected a float model, but {where} converted already; prune the "
                "original, then convert what prune returns"
            )
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if isinstance(tensor, nn.UninitializedParameter):
            raise ValueError(
                f"prune: parameter {name!r} is not initialized; call the model once before"
            )
        if tensor.device.type != "cpu":
            raise ValueError(
                f"prune: {name!r}: expected tensors on cpu, got {tensor.device}; load weights and "
                "call model.cpu() first"
            )
        is_weight = isinstance(tensor, nn.Parameter) and tensor.is_floating_point()
        if is_weight and not all_finite(tensor):
            raise ValueError(f"prune: parameter {name!r} holds NaN or infinity")
    return model


def check_choices(request: PruningRequest) -> tuple[str, ...]:
    """Return ignore as a tuple.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    method, calibration, ignore = request.method, request.calibration, request.ignore
    schedule = request.schedule
    if method not in METHODS:
        raise ValueError(f"prune: method: expected one of {list(METHODS)}, got {method!r}")
    if schedule is not None:
        raise ValueError(
            f"prune: schedule: expected None, got {type(schedule).__name__}; to prune while "
            "training give it to fastinfer.GradualPruner(model, pattern, sparsity, schedule)"
        )
    is_batches = isinstance(calibration, Iterable) and not isinstance(
        calibration, (Tensor, str, bytes, Mapping)
    )
    if calibration is not None and not is_batches:
        raise TypeError(
            "prune: calibration: expected an iterable of batches, got "
            f"{type(calibration).__name__}; put one batch in a list"
        )
    if isinstance(ignore, str) or not isinstance(ignore, Sequence):
        raise TypeError(f"prune: ignore: expected a sequence of names, got {ignore!r}")
    for entry in ignore:
        if not isinstance(entry, str):
            raise TypeError(f"prune: ignore: expected names or patterns, got {entry!r}")
    return tuple(ignore)


def check_ignored(model: nn.Module, ignore: Sequence[str]) -> None:
    """Raise ValueError for an entry that matches no module of the model."""
    names = [name for name, _ in model.named_modules(remove_duplicate=False)]
    stems = [n.rpartition("weight")[0].rstrip("._") for n, _ in model.named_parameters()]
    for entry in ignore:
        if not any(fnmatch(name, entry) for name in (*names, *stems) if name):
            raise ValueError(
                f"prune: ignore: expected the name or pattern of a module, got {entry!r}, which "
                "matches none"
            )
