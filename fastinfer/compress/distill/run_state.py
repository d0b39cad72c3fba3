"""What a checkpoint holds of a run, and whether it is of this one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fastinfer.compress.distill.checkpoint import CheckpointError, write_checkpoint
from fastinfer.compress.distill.optimizer_state import pack_optimizer, unpack_optimizer
from fastinfer.compress.distill.seeds import tensor_bytes
from fastinfer.compress.prune.gradual import GradualPruner
from fastinfer.compress.prune.hold import zero_masks

_MODEL, _BEST, _MASK, _ORDER, _OPTIMIZER = "model/", "best/", "mask/", "order/", "optimizer/"


@dataclass(frozen=True)
class LoadedRun:
    """What of a checkpoint is not in model, optimizer and pruner."""

    state: dict[str, Any]
    masks: dict[str, Tensor]
    best: dict[str, Tensor]
    orders: list[Tensor]


def save_run(
    path: Path,
    *,
    identity: Mapping[str, Any],
    state: Mapping[str, Any],
    model: nn.Module,
    optimizer: Optimizer,
    pruner: GradualPruner | None,
    masks: Mapping[str, Tensor],
    best: Mapping[str, Tensor],
    orders: list[Tensor],
) -> None:
    """Write a run's whole state.

    Raises:
        CheckpointError: the model's or optimizer's state holds something else than tensors.
    """
    packed, tensors = pack_optimizer(optimizer)
    groups = (
        (_MODEL, model.state_dict()),
        (_BEST, best),
        (_MASK, pruner.masks if pruner is not None else masks),
        (_ORDER, {str(i): order for i, order in enumerate(orders)}),
    )
    for prefix, values in groups:
        for name, value in values.items():
            if not isinstance(value, Tensor):
                raise CheckpointError(
                    f"checkpoint: expected a state_dict of tensors, got {name!r}, "
                    f"{type(value).__name__}; train without checkpoint"
                )
            tensors[prefix + name] = value
    document = {
        "identity": dict(identity),
        "state": dict(state),
        "optimizer": packed,
        "pruner_steps": None if pruner is None else pruner.steps,
    }
    write_checkpoint(path, document, tensors)


def load_run(
    document: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    optimizer: Optimizer,
    pruner: GradualPruner | None,
    device: torch.device,
) -> LoadedRun:
    """Give model, optimizer and pruner the state of a checkpoint, and return the rest of it."""

    def named(prefix: str) -> dict[str, Tensor]:
        return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

    model.load_state_dict(named(_MODEL))
    unpack_optimizer(optimizer, document["optimizer"], tensors)
    masks = {name: mask.to(device) for name, mask in named(_MASK).items()}
    if pruner is not None:
        pruner.load_state_dict({"steps": document["pruner_steps"], "masks": masks})
    orders = named(_ORDER)
    return LoadedRun(
        state=document["state"],
        masks=masks,
        best={name: tensor.to(device) for name, tensor in named(_BEST).items()},
        orders=[orders[str(i)] for i in range(len(orders))],
    )


def model_identity(name: str, model: nn.Module) -> dict[str, Any]:
    """Return what tells a model from another whatever was trained: shapes, and shares of zeros."""
    shapes = {
        f"{name}.{key}": f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
        for key, value in model.state_dict().items()
        if isinstance(value, Tensor)
    }
    zeros = {
        f"zeros in {name}.{key}": f"{1 - float(mask.float().mean()):.0%}"
        for key, mask in zero_masks(model).items()
    }
    return {**shapes, **zeros}


def weights_digest(model: nn.Module) -> str:
    """Return a checksum of a model's parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(tensor_bytes(value))
    return digest.hexdigest()


def check_same_run(path: Path, document: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raise CheckpointError, naming what differs, unless a checkpoint is of this run."""
    written = document["identity"]
    for key in dict.fromkeys((*identity, *written)):
        ours, theirs = identity.get(key, _ABSENT), written.get(key, _ABSENT)
        if ours != theirs:
            raise CheckpointError(
                f"checkpoint: {path}: expected one of this run, got one that differs in {key}: "
                f"{theirs} there, {ours} here; give the same settings, or remove the file to "
                "start anew"
            )


_ABSENT = "none"
