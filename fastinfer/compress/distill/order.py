"""The order of batches, which a resumed run must see as the one before it did."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from fastinfer.compress.distill.checkpoint import CheckpointError
from fastinfer.compress.distill.inputs import check_loader, first_batch
from fastinfer.compress.distill.seeds import batch_digest, seed_everything


class BatchOrder:
    """Reads a loader epoch by epoch, from any position on.

    Everything random is seeded from (seed, epoch) before an epoch and from (seed, epoch, position)
    before each batch. No batch then depends on how those before it were used, and a resumed run
    only reads the ones it passes over.

    Args:
        what: the function this is for, in messages.
        loader: may have generators of its own, whose state before the epoch is kept in `before`.
        seed: any whole number.
    """

    def __init__(self, what: str, loader: Iterable[Any], seed: int) -> None:
        self._what, self._seed = what, seed
        self._loader = check_loader(what, "loader", loader)
        self._generators = _generators_of(loader)
        self.before: list[Tensor] = []
        #: Checksum of the last batch that `mark` was told.
        self.digest = ""

    def count(self) -> int | None:
        """Return the batches of an epoch, None when the loader cannot tell."""
        try:
            return len(self._loader)  # type: ignore[arg-type]
        except TypeError:
            return None

    def first(self) -> Any:
        """Return the first batch without using anything up; ValueError when there is none."""
        states = [generator.get_state() for generator in self._generators]
        seed_everything(self._seed, -1)
        batch = first_batch(self._what, "loader", self._loader)
        for generator, state in zip(self._generators, states, strict=True):
            generator.set_state(state)
        return batch

    def mark(self, batch: Any) -> None:
        """Remember the batch at which a checkpoint is written."""
        self.digest = batch_digest(batch)

    def batches(self, epoch: int, done: int) -> Iterator[Any]:
        """Yield the batches of an epoch after the first `done`.

        Raises:
            CheckpointError: batch `done` is not the one that was marked.
        """
        if done:
            for generator, state in zip(self._generators, self.before, strict=True):
                generator.set_state(state)
        else:
            self.before = [generator.get_state() for generator in self._generators]
        seed_everything(self._seed, epoch)
        iterator = iter(self._loader)
        position = 0
        while True:
            seed_everything(self._seed, epoch, position)
            batch = next(iterator, _END)
            if batch is _END:
                return
            position += 1
            if position > done:
                yield batch
            elif position == done and batch_digest(batch) != self.digest:
                raise CheckpointError(
                    f"checkpoint: expected the batches of the run that was stopped, got another "
                    f"batch {position} in epoch {epoch + 1}; give {self._what} the same data in "
                    "the same order, or remove the file to start anew"
                )


_END = object()


def _generators_of(loader: Any) -> list[torch.Generator]:
    """Return the generators of its own that a DataLoader draws its order from."""
    sampler = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    found: list[torch.Generator] = []
    for holder in (loader, getattr(loader, "sampler", None), sampler):
        generator = getattr(holder, "generator", None)
        if isinstance(generator, torch.Generator) and all(g is not generator for g in found):
            found.append(generator)
    return found
