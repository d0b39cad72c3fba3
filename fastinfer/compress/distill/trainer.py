"""The training loop that distilling, fine-tuning and block-wise reconstruction share."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fastinfer.compress.batch_norm import batch_norms
from fastinfer.compress.distill.best import BestWeights
from fastinfer.compress.distill.checkpoint import check_path, read_checkpoint
from fastinfer.compress.distill.inputs import first_batch, to_device
from fastinfer.compress.distill.order import BatchOrder
from fastinfer.compress.distill.run_state import (
    check_same_run,
    load_run,
    model_identity,
    save_run,
)
from fastinfer.compress.distill.seeds import kept_random_state
from fastinfer.compress.distill.training import EpochRecord, Training
from fastinfer.compress.progress import ProgressBar
from fastinfer.compress.prune.hold import MaskHold, zero_masks


class DivergedError(ValueError):
    """A loss or gradient became NaN or infinite; the model has the best weights from before."""


class Objective(Protocol):
    """Loss of a batch; a context while it is used."""

    @property
    def taken(self) -> dict[str, str]:
        """What the loss consists of."""

    def __call__(self, batch: Any) -> Tensor:
        """Return a scalar."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *error: Any) -> None: ...


@dataclass
class Position:
    """How far a run is: `done` batches of `epoch`, whose losses' sum is `loss_sum`."""

    epoch: int = 0
    done: int = 0
    step: int = 0
    loss_sum: float = 0.0
    finished: bool = False


class Trainer:
    """One run: model, loader and objective under settings; `run()` trains the model in place.

    Args:
        what: the function this is for, in messages.
        identity: what must be equal in a checkpoint, besides model and settings; JSON values.
    """

    def __init__(
        self,
        what: str,
        model: nn.Module,
        loader: Iterable[Any],
        objective: Objective,
        training: Training,
        identity: dict[str, Any],
    ) -> None:
        self._what, self._model, self._objective, self._training = what, model, objective, training
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        if not self._parameters:
            raise ValueError(
                f"{what}: model: expected parameters that require gradients, got none; a converted "
                "model has none: train first, convert then"
            )
        self._device = self._parameters[0].device
        self._order = BatchOrder(what, loader, training.seed)
        self._total = self._count_steps()
        self._check_pruner()
        self._optimizer = training.make_optimizer(what, self._parameters)
        self._highest = [float(group["lr"]) for group in self._optimizer.param_groups]
        self._at = Position()
        self._best = BestWeights(model, training, self._loss, self._device)
        self._path = None if training.checkpoint is None else Path(training.checkpoint)
        self._identity = identity
        self._hold: MaskHold | None = None

    @property
    def steps(self) -> int:
        """Optimizer steps taken so far."""
        return self._at.step

    def _count_steps(self) -> int:
        epochs, steps, length = self._training.epochs, self._training.steps, self._order.count()
        if length is not None:
            return epochs * length if steps is None else min(steps, epochs * length)
        if steps is None:
            raise ValueError(
                f"{self._what}: steps: expected a number of steps, as the loader has no len() "
                "from which the learning rate's schedule could be told, got None"
            )
        return steps

    def _check_pruner(self) -> None:
        pruner = self._training.pruner
        if pruner is None:
            return
        if pruner.model is not self._model:
            raise ValueError(f"{self._what}: pruner: expected one of the model that is trained")
        if pruner.schedule.end >= self._total:
            raise ValueError(
                f"{self._what}: pruner: expected a schedule that ends before the last of "
                f"{self._total} steps, got end={pruner.schedule.end}"
            )

    def run(self) -> None:
        """Train; the model has the best weights, or without a figure the last, afterwards.

        Raises:
            DivergedError: a loss or gradient is NaN or infinite.
            CheckpointError: the checkpoint is damaged or of another run.
        """
        modes = [(module, module.training) for module in self._model.modules()]
        gradients = [p.grad for p in self._parameters]
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(kept_random_state(self._device))
                stack.enter_context(self._objective)
                self._check_first_batch()
                self._start()
                if self._hold is not None:
                    stack.enter_context(self._hold)
                bar = stack.enter_context(ProgressBar(self._total, self._training.progress))
                while not self._at.finished:
                    self._run_epoch(bar)
                if self._best.best_score is not None and self._best.step != self._at.step:
                    self._best.restore()
        finally:
            for module, mode in modes:
                module.training = mode
            for parameter, gradient in zip(self._parameters, gradients, strict=True):
                parameter.grad = gradient

    def _check_first_batch(self) -> None:
        """Run the objective once, so that what does not fit is said before any work."""
        batch = to_device(self._order.first(), self._device)
        self._model.eval()
        with torch.no_grad():
            value = float(self._loss(batch))
        if not math.isfinite(value):
            raise ValueError(
                f"{self._what}: loss: expected a finite number, got {value} of the first batch "
                "before any step"
            )
        if self._training.held_out is not None:
            first_batch(self._what, "held_out", self._training.held_out)

    def _start(self) -> None:
        """Take up a checkpoint, or begin."""
        masks = self._resume()
        if self._training.hold_zeros and self._training.pruner is None:
            held = zero_masks(self._model) if masks is None else masks
            self._hold = MaskHold(self._model, held) if held else None
        if masks is not None:
            return
        self._best.keep(0)  # to go back to where the first steps diverge
        if self._training.scores and self._training.pruner is None:
            self._best.evaluate(0)
        self._save()

    def _resume(self) -> dict[str, Tensor] | None:
        """Return the masks of the checkpoint whose state was taken up, None when there is none."""
        if self._path is None:
            return None
        check_path(self._what, self._path)
        groups = [
            {key: str(value) for key, value in group.items() if key != "params"}
            for group in self._optimizer.param_groups
        ]
        self._identity = {
            **self._identity,
            **self._training.identity(),
            "optimizer": {"class": type(self._optimizer).__name__, "groups": groups},
            "loss": self._objective.taken,
            "steps": self._total,
            **model_identity("model", self._model),
        }
        if not self._path.exists():
            return None
        document, tensors = read_checkpoint(self._path)
        check_same_run(self._path, document, self._identity)
        loaded = load_run(
            document, tensors, self._model, self._optimizer, self._training.pruner, self._device
        )
        self._at = Position(**loaded.state["position"])
        self._best.load(loaded.state["best"], loaded.best)
        self._order.before, self._order.digest = loaded.orders, loaded.state["batch"]
        return loaded.masks

    def _save(self) -> None:
        if self._path is None:
            return
        save_run(
            self._path,
            identity=self._identity,
            state={
                "position": asdict(self._at),
                "best": self._best.state(),
                "batch": self._order.digest,
            },
            model=self._model,
            optimizer=self._optimizer,
            pruner=self._training.pruner,
            masks={} if self._hold is None else self._hold.masks,
            best=self._best.weights,
            orders=self._order.before,
        )

    def _run_epoch(self, bar: ProgressBar) -> None:
        at, training = self._at, self._training
        for given in self._order.batches(at.epoch, at.done):
            at.loss_sum += self._step(to_device(given, self._device))
            at.step, at.done = at.step + 1, at.done + 1
            bar.tell(self._text(), at.step)
            if training.evaluate_every and at.step % training.evaluate_every == 0:
                self._best.evaluate(at.step)
            if self._is_over():
                break
            if self._path is not None and at.step % training.every_steps == 0:
                self._order.mark(given)
                self._save()
        if not at.done:
            raise ValueError(
                f"{self._what}: loader: expected at least one batch in epoch {at.epoch + 1}, got "
                "none; it can be read only once"
            )
        self._end_epoch()
        self._save()

    def _is_over(self) -> bool:
        patience = self._training.patience
        return self._at.step >= self._total or (
            patience is not None and self._best.stale >= patience
        )

    def _end_epoch(self) -> None:
        at, training, best = self._at, self._training, self._best
        is_last = at.epoch + 1 >= training.epochs or self._is_over()
        before = best.step
        if not training.scores:
            best.keep(at.step)
        elif best.evaluated_step != at.step and (is_last or not training.evaluate_every):
            best.evaluate(at.step)
        record = EpochRecord(
            epoch=at.epoch + 1,
            step=at.step,
            loss=at.loss_sum / at.done,
            lr=float(self._optimizer.param_groups[0]["lr"]),
            score=best.score,
            is_best=best.step != before,
            losses=dict(self._objective.taken),
        )
        at.epoch, at.done, at.loss_sum = at.epoch + 1, 0, 0.0
        at.finished = is_last or self._is_over()
        if training.on_epoch is not None:
            with kept_random_state(self._device):
                training.on_epoch(record)

    def _step(self, batch: Any) -> float:
        """Return the batch's loss, after an optimizer step by its gradient."""
        training = self._training
        where = f"epoch {self._at.epoch + 1}, batch {self._at.done + 1}"
        factor = training.factor(self._at.step, self._total)
        for group, highest in zip(self._optimizer.param_groups, self._highest, strict=True):
            group["lr"] = highest * factor
        self._model.train()
        if training.batch_norm == "freeze":
            for module in batch_norms(self._model):
                module.eval()
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss(batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            self._diverged(f"loss {value}", where)
        torch.autograd.backward(loss)
        largest = math.inf if training.clip is None else training.clip
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, largest))
        if not math.isfinite(norm):
            self._diverged(f"gradient of norm {norm}", where)
        self._optimizer.step()
        if training.pruner is not None:
            training.pruner.step()
        return value

    def _loss(self, batch: Any) -> Tensor:
        is_bf16 = self._training.precision == "bf16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=is_bf16):
            return self._objective(batch)

    def _diverged(self, found: str, where: str) -> None:
        self._best.restore()
        raise DivergedError(
            f"{self._what}: expected finite numbers, got a {found} at {where} (step "
            f"{self._at.step + 1}); the model has its weights of step {self._best.step} again: "
            "look at that batch, or take a lower lr"
        )

    def _text(self) -> str:
        at = self._at
        text = f"{self._what} epoch {at.epoch + 1}/{self._training.epochs}"
        text += f" loss {at.loss_sum / at.done:.4g}"
        if self._best.best_score is not None:
            text += f" best {self._best.best_score:.4g}"
        taken = ", ".join(f"{name}: {loss}" for name, loss in self._objective.taken.items())
        return f"{text} ({taken})"
