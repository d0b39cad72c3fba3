"""The best weights so far, and the figure that says so."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastinfer.compress.distill.inputs import to_device
from fastinfer.compress.distill.seeds import kept_random_state
from fastinfer.compress.distill.training import Training


class BestWeights:
    """Keeps a copy of the weights to go back to.

    Args:
        model: whose weights.
        training: says how they are judged.
        loss: batch -> its loss, for held-out batches.
        device: the model's.
    """

    def __init__(
        self,
        model: nn.Module,
        training: Training,
        loss: Callable[[Any], Tensor],
        device: torch.device,
    ) -> None:
        self._model, self._training, self._loss, self._device = model, training, loss, device
        #: state_dict of the model at `step`.
        self.weights: dict[str, Tensor] = {}
        self.step = 0
        #: The last figure, and that of the weights; None before the first.
        self.score: float | None = None
        self.best_score: float | None = None
        #: Evaluations since the best.
        self.stale = 0
        self.evaluated_step: int | None = None

    def keep(self, step: int) -> None:
        """Copy the weights as they are."""
        self.step = step
        self.weights = {
            name: value.detach().clone() if isinstance(value, Tensor) else value
            for name, value in self._model.state_dict().items()
        }

    def restore(self) -> None:
        """Give the model the copied weights."""
        self._model.load_state_dict(self.weights)

    def evaluate(self, step: int) -> None:
        """Ask for the figure of the weights as they are, and keep them if it is the best."""
        self.evaluated_step = step
        self._model.eval()
        with kept_random_state(self._device), torch.no_grad():
            if self._training.evaluate is not None:
                self.score = float(self._training.evaluate(self._model))
            else:
                self.score = -self._held_out_loss()
        pruner = self._training.pruner
        if pruner is not None and not pruner.finished:
            return  # of a network that is not as sparse yet
        is_best = self.best_score is None or self.score > self.best_score
        if is_best and not math.isnan(self.score):
            self.best_score, self.stale = self.score, 0
            self.keep(step)
        else:
            self.stale += 1

    def _held_out_loss(self) -> float:
        batches = self._training.held_out
        assert batches is not None
        losses = [float(self._loss(to_device(batch, self._device))) for batch in batches]
        return sum(losses) / len(losses)

    def state(self) -> dict[str, Any]:
        """Return all but the weights, as JSON values."""
        names = ("step", "score", "best_score", "stale", "evaluated_step")
        return {name: getattr(self, name) for name in names}

    def load(self, state: dict[str, Any], weights: dict[str, Tensor]) -> None:
        """Take up what `state` and `weights` were."""
        for name, value in state.items():
            setattr(self, name, value)
        self.weights = weights
