"""What a task is: a network, data in parts kept apart, and figures of a model's answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fastinfer.types.call import call

#: What a sample may be used for. "calibration": ranges, Gram matrices. "distillation": training
#: without labels, calibration samples among them. "choosing": settings, when to stop.
#: "evaluation": the figures that are reported, and nothing else.
Split = Literal["calibration", "distillation", "choosing", "evaluation"]
SPLITS: tuple[Split, ...] = ("calibration", "distillation", "choosing", "evaluation")
#: Pairs of parts that may share samples.
MAY_OVERLAP = {("calibration", "distillation")}


@dataclass(frozen=True)
class Figure:
    """One figure of a model, and how many independent samples stand behind it."""

    value: float
    samples: int


@dataclass(frozen=True)
class Task:
    """A network and what it is for.

    name: as in `TASKS`.  title: for people.
    headline: the figure that matters; `higher_is_better` says in which direction.
    build: returns the float network in eval mode, the same each time.
    batches: a part -> what the network is called with: tensors, or tuples of arguments.
    identities: a part -> a name of each sample's source (photo, text, note), for `disjoint`.
    judge: (float answers, answers, part) -> figures; answers [N, ...] are in batch order.
    float_answers: a part -> what the float network answers, [N, ...]; cached.
    timed_batch: samples of the call that is timed.
    """

    name: str
    title: str
    headline: str
    higher_is_better: bool
    build: Callable[[], nn.Module]
    batches: Callable[[Split], Sequence[Any]]
    identities: Callable[[Split], frozenset[str]]
    judge: Callable[[Tensor, Tensor, Split], dict[str, Figure]]
    float_answers: Callable[[Split], Tensor]
    timed_batch: int = 1

    def calibration(self) -> list[Any]:
        """Return the calibration batches, without labels."""
        return list(self.batches("calibration"))

    def distillation(self) -> list[Any]:
        """Return batches to train on without labels, calibration's samples among them."""
        return list(self.batches("distillation"))

    def example_inputs(self) -> Any:
        """Return a batch of one."""
        return pytree.tree_map(lambda x: x[:1], self.batches("calibration")[0])

    def timed_inputs(self) -> Any:
        """Return the batch that is timed."""
        return pytree.tree_map(lambda x: x[: self.timed_batch], self.batches("calibration")[0])

    def evaluate(self, model: Callable[..., Any], split: Split = "evaluation") -> dict[str, Figure]:
        """Return the figures of a model on a part of the data."""
        return self.judge(self.float_answers(split), answers(model, self.batches(split)), split)


def answers(model: Callable[..., Any], batches: Sequence[Any]) -> Tensor:
    """Return a model's float32 answers [N, ...] to batches, in order."""
    with torch.inference_mode():
        parts = [call(model, batch).float() for batch in batches]
    return torch.cat(parts).clone()


def disjoint(task: Task) -> bool:
    """Return whether no sample is in two parts that must be apart."""
    sources = {split: task.identities(split) for split in SPLITS}
    return all(
        not sources[a] & sources[b]
        for i, a in enumerate(SPLITS)
        for b in SPLITS[i + 1 :]
        if (a, b) not in MAY_OVERLAP
    )
