"""The training loop that distilling, fine-tuning and block-wise reconstruction share."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fastinfer.compress.batch_norm import batch_norms
from fastinfer.compress.distill.checkpoint import CheckpointError, check_path, read_checkpoint
from fastinfer.compress.distill.inputs import check_loader, first_batch, to_device
from fastinfer.compress.distill.progress import ProgressBar
from fastinfer.compress.distill.run_state import (
    check_same_run,
    load_run,
    model_identity,
    save_run,
)
from fastinfer.compress.distill.seeds import (
    batch_digest,
    kept_random_state,
    loader_generators,
    seed_everything,
)
from fastinfer.compress.distill.training import EpochRecord, Training
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
class Progressed:
    """How far a run is: all of its state that is a number.

    `position` batches of `epoch` are done; their losses' sum is `loss_sum`. `stale` evaluations
    brought no new best.
    """

    epoch: int = 0
    position: int = 0
    step: int = 0
    loss_sum: float = 0.0
    score: float | None = None
    best_score: float | None = None
    best_step: int | None = None
    stale: int = 0
    evaluated_step: int | None = None
    finished: bool = False


class Trainer:
    """One run: model, loader and objective under settings; `run()` trains the model in place."""

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
        self._loader = check_loader(what, "loader", loader)
        parameters = [p for p in model.parameters() if p.requires_grad]
        if not parameters:
            raise ValueError(
                f"{what}: model: expected parameters that require gradients, got none; a converted "
                "model has none: train first, convert then"
            )
        self._device = parameters[0].device
        self._total = self._count_steps()
        if training.pruner is not None:
            self._check_pruner()
        self._optimizer = training.make_optimizer(what, parameters)
        self._parameters = parameters
        self._highest = [float(group["lr"]) for group in self._optimizer.param_groups]
        self._state = Progressed()
        self._best: dict[str, Tensor] = {}
        self._generators = loader_generators(loader)
        self._orders: list[Tensor] = []
        self._last_digest = ""
        self._path = None if training.checkpoint is None else Path(training.checkpoint)
        self._identity = identity
        self._hold: MaskHold | None = None

    def _count_steps(self) -> int:
        training = self._training
        try:
            length = len(self._loader)  # type: ignore[arg-type]
        except TypeError:
            if training.steps is None:
                raise ValueError(
                    f"{self._what}: steps: expected a number of steps, as the loader has no len() "
                    "from which the learning rate's schedule could be told, got None"
                ) from None
            return training.steps
        total = training.epochs * length
        return total if training.steps is None else min(total, training.steps)

    def _check_pruner(self) -> None:
        pruner = self._training.pruner
        assert pruner is not None
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
                self._run_epochs(bar)
        finally:
            for module, mode in modes:
                module.training = mode
            for parameter, gradient in zip(self._parameters, gradients, strict=True):
                parameter.grad = gradient

    def _check_first_batch(self) -> None:
        """Run the objective once, so that what does not fit is said before any work."""
        seed_everything(self._training.seed, -1)
        states = [g.get_state() for g in self._generators]
        batch = first_batch(self._what, "loader", self._loader)
        for generator, state in zip(self._generators, states, strict=True):
            generator.set_state(state)
        self._model.eval()
        self._read_loss(to_device(batch, self._device), "the first batch, before any step")
        if self._training.held_out is not None:
            first_batch(self._what, "held_out", self._training.held_out)

    def _start(self) -> None:
        """Take up a checkpoint, or begin."""
        masks: dict[str, Tensor] | None = None
        if self._path is not None:
            check_path(self._what, self._path)
            self._identity = {
                **self._identity,
                **self._training.identity(),
                "optimizer": _optimizer_identity(self._optimizer),
                "loss": self._objective.taken,
                "steps": self._total,
                **model_identity("model", self._model),
            }
            if self._path.exists():
                masks = self._resume(self._path)
        if self._training.hold_zeros and self._training.pruner is None:
            held = zero_masks(self._model) if masks is None else masks
            self._hold = MaskHold(self._model, held) if held else None
        if masks is None:
            self._keep_best()  # to go back to where the first steps diverge
            if self._training.scores and self._training.pruner is None:
                self._evaluate()
            self._save()

    def _resume(self, path: Path) -> dict[str, Tensor]:
        document, tensors = read_checkpoint(path)
        check_same_run(path, document, self._identity)
        loaded = load_run(
            document, tensors, self._model, self._optimizer, self._training.pruner, self._device
        )
        self._state = Progressed(**loaded.state)
        self._best, self._orders = loaded.best, loaded.orders
        self._last_digest = loaded.batch_digest
        return loaded.masks

    def _save(self) -> None:
        if self._path is not None:
            save_run(
                self._path,
                identity=self._identity,
                state=asdict(self._state),
                model=self._model,
                optimizer=self._optimizer,
                pruner=self._training.pruner,
                masks={} if self._hold is None else self._hold.masks,
                best=self._best,
                orders=self._orders,
                batch_digest=self._last_digest,
            )

    def _run_epochs(self, bar: ProgressBar) -> None:
        state, training = self._state, self._training
        while not state.finished:
            for batch in self._batches():
                self._train_mode()
                loss = self._step(batch)
                state.step, state.position = state.step + 1, state.position + 1
                state.loss_sum += loss
                bar.tell(self._text(), state.step)
                if training.evaluate_every and state.step % training.evaluate_every == 0:
                    self._evaluate()
                if self._is_over():
                    break
                if self._path is not None and state.step % training.every_steps == 0:
                    self._last_digest = batch_digest(batch)
                    self._save()
            self._end_epoch()
            self._save()
        if training.scores and self._best and state.best_step != state.step:
            self._model.load_state_dict(self._best)

    def _is_over(self) -> bool:
        patience = self._training.patience
        return self._state.step >= self._total or (
            patience is not None and self._state.stale >= patience
        )

    def _is_last_epoch(self) -> bool:
        return self._state.epoch + 1 >= self._training.epochs

    def _end_epoch(self) -> None:
        state, training = self._state, self._training
        if not state.position:
            raise ValueError(
                f"{self._what}: loader: expected at least one batch in epoch {state.epoch + 1}, "
                "got none; it can be read only once"
            )
        before = state.best_step
        is_due = not training.evaluate_every or self._is_over() or self._is_last_epoch()
        if training.scores and is_due and state.evaluated_step != state.step:
            self._evaluate()
        if not training.scores:
            self._keep_best()
        record = EpochRecord(
            epoch=state.epoch + 1,
            step=state.step,
            loss=state.loss_sum / state.position,
            lr=float(self._optimizer.param_groups[0]["lr"]),
            score=state.score,
            is_best=state.best_step != before,
            losses=dict(self._objective.taken),
        )
        is_last = self._is_last_epoch()
        state.epoch, state.position, state.loss_sum = state.epoch + 1, 0, 0.0
        state.finished = is_last or self._is_over()
        if training.on_epoch is not None:
            with kept_random_state(self._device):
                training.on_epoch(record)

    def _batches(self) -> Iterator[Any]:
        """Yield the epoch's batches that are not done, on the model's device.

        Everything random is seeded before each by (seed, epoch, position), so that no batch depends
        on how the ones before were used: those a resumed run passes over are only read.
        """
        state, seed = self._state, self._training.seed
        if state.position:
            for generator, order in zip(self._generators, self._orders, strict=True):
                generator.set_state(order)
        else:
            self._orders = [generator.get_state() for generator in self._generators]
        seed_everything(seed, state.epoch)
        iterator = iter(self._loader)
        done, position = state.position, 0
        while True:
            seed_everything(seed, state.epoch, position)
            batch = next(iterator, _END)
            if batch is _END:
                return
            position += 1
            if position > done:
                yield to_device(batch, self._device)
            elif position == done and batch_digest(batch) != self._last_digest:
                raise CheckpointError(
                    f"checkpoint: {self._path}: expected the loader's batches to be those of the "
                    f"run that was killed, got another batch {position} in epoch "
                    f"{state.epoch + 1}; give the same data, and no randomness of your own seeds"
                )

    def _step(self, batch: Any) -> float:
        where = f"epoch {self._state.epoch + 1}, batch {self._state.position + 1}"
        factor = self._training.factor(self._state.step, self._total)
        for group, highest in zip(self._optimizer.param_groups, self._highest, strict=True):
            group["lr"] = highest * factor
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss(batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            self._diverged(f"loss {value}", where)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(
            self._parameters, math.inf if self._training.clip is None else self._training.clip
        )
        if not math.isfinite(float(norm)):
            self._diverged(f"gradient of norm {float(norm)}", where)
        self._optimizer.step()
        if self._training.pruner is not None:
            self._training.pruner.step()
        return value

    def _loss(self, batch: Any) -> Tensor:
        is_bf16 = self._training.precision == "bf16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=is_bf16):
            return self._objective(batch)

    @torch.no_grad()
    def _read_loss(self, batch: Any, where: str) -> float:
        value = float(self._loss(batch))
        if not math.isfinite(value):
            raise ValueError(
                f"{self._what}: loss: expected a finite number of {where}, got {value}"
            )
        return value

    def _diverged(self, found: str, where: str) -> None:
        self._model.load_state_dict(self._best)
        step = self._state.best_step
        raise DivergedError(
            f"{self._what}: expected finite numbers, got a {found} at {where} (step "
            f"{self._state.step + 1}); the model has its weights of step {step} again: "
            "look at that batch, or take a lower lr"
        )

    def _train_mode(self) -> None:
        self._model.train()
        if self._training.batch_norm == "freeze":
            for module in batch_norms(self._model):
                module.eval()

    def _evaluate(self) -> None:
        """Ask for the figure; weights that have the best one so far are kept."""
        state, training = self._state, self._training
        state.evaluated_step = state.step
        self._model.eval()
        with kept_random_state(self._device), torch.no_grad():
            if training.evaluate is not None:
                state.score = float(training.evaluate(self._model))
            else:
                state.score = -self._held_out_loss()
        if training.pruner is not None and not training.pruner.finished:
            return  # of a network that is not as sparse yet
        if not math.isnan(state.score) and (
            state.best_score is None or state.score > state.best_score
        ):
            state.best_score, state.stale = state.score, 0
            self._keep_best()
        else:
            state.stale += 1

    def _held_out_loss(self) -> float:
        assert self._training.held_out is not None
        batches = (to_device(batch, self._device) for batch in self._training.held_out)
        losses = [float(self._loss(batch)) for batch in batches]
        return sum(losses) / len(losses)

    def _keep_best(self) -> None:
        self._state.best_step = self._state.step
        self._best = {
            name: value.detach().clone() if isinstance(value, Tensor) else value
            for name, value in self._model.state_dict().items()
        }

    def _text(self) -> str:
        state = self._state
        text = f"{self._what} epoch {state.epoch + 1}/{self._training.epochs}"
        text += f" loss {state.loss_sum / state.position:.4g}"
        if state.best_score is not None:
            text += f" best {state.best_score:.4g}"
        taken = ", ".join(f"{name}: {loss}" for name, loss in self._objective.taken.items())
        return f"{text} ({taken})"


_END = object()


def _optimizer_identity(optimizer: torch.optim.Optimizer) -> str:
    groups = [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
    return f"{type(optimizer).__name__} {groups}"
