"""What training makes small: a function of a batch."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from fastinfer.compress.distill.features import FeatureLoss, Features, feature_names
from fastinfer.compress.distill.inputs import BatchReader
from fastinfer.compress.distill.losses import OutputLoss, callable_name, scalar

#: (output, batch) -> scalar.
TaskLoss = Callable[[Any, Any], Tensor]


class TaskObjective:
    """A loss of the model's output and the batch, as in any training."""

    def __init__(self, what: str, model: nn.Module, loss: TaskLoss, reader: BatchReader) -> None:
        if not callable(loss):
            raise TypeError(f"{what}: loss: expected a function (output, batch), got {loss!r}")
        self._what, self._model, self._loss, self._reader = what, model, loss, reader
        self.taken = {"task": callable_name(loss)}

    def __enter__(self) -> TaskObjective:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __call__(self, batch: Any) -> Tensor:
        """Return the batch's loss."""
        args, kwargs = self._reader.call(batch)
        return scalar(self._what, "loss", self._loss(self._model(*args, **kwargs), batch))


class DistillObjective:
    """Distance of the student's outputs and hidden states to the teacher's, and a task's loss.

    As a context it has its hooks on both models and the teacher in eval mode.
    """

    def __init__(
        self,
        what: str,
        student: nn.Module,
        teacher: nn.Module,
        reader: BatchReader,
        *,
        outputs: OutputLoss,
        features: Features | None,
        feature_weight: float,
        task_loss: TaskLoss | None,
        task_weight: float,
    ) -> None:
        if task_loss is not None and not callable(task_loss):
            raise TypeError(
                f"{what}: task_loss: expected a function (output, batch), got {task_loss!r}"
            )
        for name, weight in (("feature_weight", feature_weight), ("task_weight", task_weight)):
            if not 0 <= weight < float("inf"):
                raise ValueError(f"{what}: {name}: expected a number >= 0, got {weight}")
        self._what, self._student, self._teacher, self._reader = what, student, teacher, reader
        self._outputs = outputs
        self.pairs = None if features is None else feature_names(what, student, teacher, features)
        self._found_features = features == "auto"
        self._feature_weight, self._task_weight = feature_weight, task_weight
        self._task_loss = task_loss
        self._features: FeatureLoss | None = None
        self._modes: list[tuple[nn.Module, bool]] = []

    @property
    def taken(self) -> dict[str, str]:
        """Output -> the loss taken for it, once a batch was seen."""
        taken = dict(self._outputs.taken)
        if self.pairs is not None:
            taken["features"] = f"mse of {len(self.pairs)} modules"
        if self._task_loss is not None:
            taken["task"] = callable_name(self._task_loss)
        return taken

    def __enter__(self) -> DistillObjective:
        self._modes = [(module, module.training) for module in self._teacher.modules()]
        self._teacher.eval()
        if self.pairs is not None:
            self._features = FeatureLoss(
                self._what, self._student, self._teacher, self.pairs, self._found_features
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._features is not None:
            self._features.remove()
        for module, mode in self._modes:
            module.training = mode

    def __call__(self, batch: Any) -> Tensor:
        """Return the batch's loss."""
        args, kwargs = self._reader.call(batch)
        with torch.no_grad():
            wanted = self._teacher(*args, **kwargs)
        output = self._student(*args, **kwargs)
        total = self._outputs(output, wanted)
        if self._features is not None:
            total = total + self._feature_weight * self._features()
        if self._task_loss is not None:
            task = scalar(self._what, "task_loss", self._task_loss(output, batch))
            total = total + self._task_weight * task
        return total
