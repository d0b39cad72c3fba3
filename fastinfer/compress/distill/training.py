"""The settings of a training, as a value."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from torch import nn
from torch.optim import AdamW, Optimizer

from fastinfer.compress.distill.inputs import Inputs, check_loader
from fastinfer.compress.distill.losses import callable_name
from fastinfer.compress.prune.gradual import GradualPruner

Factory = Callable[[list[nn.Parameter]], Optimizer]


@dataclass(frozen=True)
class EpochRecord:
    """What `on_epoch` is told after each epoch.

    loss is the mean over the epoch's batches, score what `evaluate` or `held_out` said last (higher
    is better, None without either), losses the loss taken for each output.
    """

    epoch: int
    step: int
    loss: float
    lr: float
    score: float | None
    is_best: bool
    losses: dict[str, str]


@dataclass(frozen=True)
class Training:
    """Settings that `distill`, `finetune` and `reconstruct` share.

    Args:
        epochs: passes over the loader.
        steps: optimizer steps at most, in all epochs; needed where the loader has no len().
        lr: learning rate at its highest.
        weight_decay: of AdamW, for weights of two dimensions and more.
        optimizer: a function of the list of parameters, in the place of AdamW; its learning rates
            are those at the highest.
        warmup: share of the steps, 0..1, in which the learning rate grows from 0.
        decay: "cosine" to 0, or "constant".
        clip: largest norm of the gradient, None for any.
        precision: "bf16" runs the forward passes under autocast.
        batch_norm: "update" moves running statistics with each batch, as any training does, and
            a pruned network needs; "freeze" keeps them, for batches of few samples.
        hold_zeros: weights that are zero at the start stay zero.
        pruner: prunes meanwhile; holds zeros itself.
        inputs: batch -> what the model is called with.
        evaluate: model in eval mode -> figure, higher is better.
        held_out: batches whose mean loss, negated, is the figure in the place of evaluate's.
        evaluate_every: steps between two evaluations, in the place of one after each epoch.
        patience: stop after so many evaluations without a new best.
        checkpoint: a file, from which a killed run goes on as if nothing had been.
        every_steps: steps between two checkpoints.
        seed: of everything random.
        on_epoch: is told an EpochRecord after each epoch.
        progress: a bar on stderr where it takes over a second; by default if that is a terminal.
    """

    epochs: int
    steps: int | None = None
    lr: float = 5e-4
    weight_decay: float = 0.01
    optimizer: Factory | None = None
    warmup: float = 0.1
    decay: Literal["cosine", "constant"] = "cosine"
    clip: float | None = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    batch_norm: Literal["update", "freeze"] = "update"
    hold_zeros: bool = True
    pruner: GradualPruner | None = None
    inputs: Inputs | None = None
    evaluate: Callable[[nn.Module], float] | None = None
    held_out: Iterable[Any] | None = None
    evaluate_every: int | None = None
    patience: int | None = None
    checkpoint: str | Path | None = None
    every_steps: int = 100
    seed: int = 0
    on_epoch: Callable[[EpochRecord], None] | None = None
    progress: bool | None = None

    def check(self, what: str) -> None:
        """Raise TypeError or ValueError, as of the function `what`, for a setting that is wrong."""
        for name in ("epochs", "steps", "evaluate_every", "patience", "every_steps"):
            value = getattr(self, name)
            if value is None and name not in ("epochs", "every_steps"):
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{what}: {name}: expected a whole number, got {value!r}")
            if value < 1:
                raise ValueError(f"{what}: {name}: expected 1 or more, got {value}")
        if not isinstance(self.seed, int):
            raise TypeError(f"{what}: seed: expected a whole number, got {self.seed!r}")
        for name, low, high in (
            ("lr", 0.0, math.inf), ("weight_decay", 0.0, math.inf), ("warmup", 0.0, 1.0),
        ):  # fmt: skip
            value = getattr(self, name)
            if not (low <= value <= high and math.isfinite(value)):
                raise ValueError(
                    f"{what}: {name}: expected a number {low:g}..{high:g}, got {value}"
                )
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"{what}: clip: expected a norm > 0 or None, got {self.clip}")
        for name, known in (
            ("decay", ("cosine", "constant")),
            ("precision", ("fp32", "bf16")),
            ("batch_norm", ("update", "freeze")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{what}: {name}: expected one of {list(known)}, got {getattr(self, name)!r}"
                )
        for name in ("optimizer", "evaluate", "on_epoch"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise TypeError(f"{what}: {name}: expected a function, got {value!r}")
        if self.pruner is not None and not isinstance(self.pruner, GradualPruner):
            raise TypeError(f"{what}: pruner: expected a GradualPruner, got {self.pruner!r}")
        if self.evaluate is not None and self.held_out is not None:
            raise ValueError(f"{what}: evaluate, held_out: expected one of them, got both")
        if self.held_out is not None:
            check_loader(what, "held_out", self.held_out)
        if not self.scores and (self.patience is not None or self.evaluate_every is not None):
            raise ValueError(
                f"{what}: patience, evaluate_every: expected with them evaluate or held_out, got "
                "neither"
            )

    @property
    def scores(self) -> bool:
        """True when there is a figure to choose the best weights by."""
        return self.evaluate is not None or self.held_out is not None

    def factor(self, step: int, total: int) -> float:
        """Return the share of the highest learning rate that step, from 0, of `total` has."""
        warm = round(self.warmup * total)
        if step < warm:
            return (step + 1) / warm
        if self.decay == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))

    def make_optimizer(self, what: str, parameters: list[nn.Parameter]) -> Optimizer:
        """Return the optimizer of these parameters; TypeError when the factory gives none."""
        if self.optimizer is not None:
            made = self.optimizer(parameters)
            if not isinstance(made, Optimizer):
                raise TypeError(
                    f"{what}: optimizer: expected a function of a list of parameters that returns "
                    f"an Optimizer, got one that returns {type(made).__name__}"
                )
            return made
        decayed = [p for p in parameters if p.dim() >= 2]
        others = [p for p in parameters if p.dim() < 2]
        groups = [
            {"params": group, "weight_decay": decay}
            for group, decay in ((decayed, self.weight_decay), (others, 0.0))
            if group
        ]
        return AdamW(groups, lr=self.lr)

    def identity(self) -> dict[str, Any]:
        """Return what must be equal for a checkpoint to be of the same run, as JSON values."""
        free = {"checkpoint", "every_steps", "on_epoch", "progress", "held_out", "pruner"}
        values: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name not in free:
                values[entry.name] = callable_name(value) if callable(value) else value
        if self.pruner is not None:
            values["pruner"] = f"{self.pruner.pattern}, {self.pruner.schedule}"
        values["held_out"] = self.held_out is not None
        return values


def make_training(what: str, options: dict[str, Any]) -> Training:
    """Return the settings of a call's keyword arguments.

    Raises:
        TypeError: one of them is none of Training's.
    """
    known = [entry.name for entry in fields(Training)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise TypeError(f"{what}: {unknown[0]}: expected an option of {known}, got this name")
    training = Training(**options)
    training.check(what)
    return training
