"""Hidden states of student and teacher, compared while both run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastinfer.compress.distill.blocks import find_blocks
from fastinfer.compress.distill.losses import matched, mse_loss

#: {student's module: teacher's}, names that both have, or "auto": the blocks that both have.
Features = Mapping[str, str] | Sequence[str] | str


def feature_names(
    what: str, student: nn.Module, teacher: nn.Module, features: Features
) -> dict[str, str]:
    """Return the student's module -> the teacher's, by name.

    Raises:
        ValueError: a name is not in its model, or "auto" finds no block that both have.
        TypeError: features is none of the forms.
    """
    ours, theirs = dict(student.named_modules()), dict(teacher.named_modules())
    if features == "auto":
        names = [name for name in find_blocks(student) if name in theirs]
        if not names:
            raise ValueError(
                f"{what}: features: 'auto' found no block that student and teacher both have; name "
                "pairs {student's module: teacher's}"
            )
        return {name: name for name in names}
    if isinstance(features, Mapping):
        pairs = dict(features)
    elif isinstance(features, Sequence) and not isinstance(features, str):
        pairs = {name: name for name in features}
    else:
        raise TypeError(
            f"{what}: features: expected a dict, a list of names or 'auto', got {features!r}"
        )
    for whose, known, names in (
        ("student", ours, list(pairs)),
        ("teacher", theirs, list(pairs.values())),
    ):
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ValueError(
                f"{what}: features: expected names of the {whose}'s modules, got {unknown[0]!r}; "
                f"it has {[n for n in known if n][:6]} and others"
            )
    if not pairs:
        raise ValueError(f"{what}: features: expected at least one name, got none")
    return pairs


class FeatureLoss:
    """The mean over layers of the normalised MSE between hidden states of the last calls.

    Args:
        student, teacher: hooks stay on them until `remove()`.
        pairs: student's module -> teacher's.
        skip_others: leave out a pair whose shapes differ, where the names were found and not given.
    """

    def __init__(
        self,
        what: str,
        student: nn.Module,
        teacher: nn.Module,
        pairs: Mapping[str, str],
        skip_others: bool,
    ) -> None:
        self._what, self._pairs, self._skip_others = what, dict(pairs), skip_others
        self._seen: dict[tuple[str, str], Any] = {}
        self._hooks = [
            model.get_submodule(name).register_forward_hook(self._keep(whose, name))
            for whose, model, names in (
                ("student", student, self._pairs.keys()),
                ("teacher", teacher, self._pairs.values()),
            )
            for name in dict.fromkeys(names)
        ]

    def _keep(self, whose: str, name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self._seen[whose, name] = output

        return hook

    def __call__(self) -> Tensor:
        """Return the loss of what both models' last calls left, and forget that."""
        losses = []
        seen, self._seen = self._seen, {}
        for ours, theirs in self._pairs.items():
            for whose, name in (("student", ours), ("teacher", theirs)):
                if (whose, name) not in seen and not self._skip_others:
                    raise ValueError(
                        f"{self._what}: features: the {whose}'s {name!r} is not called as a module"
                    )
            where = f"{self._what}: features: {ours}"
            try:
                pairs = matched(where, seen["student", ours], seen["teacher", theirs])
            except (KeyError, ValueError):
                if self._skip_others:
                    continue
                raise
            losses += [mse_loss(s, t.detach()) for _, s, t in pairs]
        if not losses:
            raise ValueError(
                f"{self._what}: features: 'auto' found no block whose outputs have one shape in "
                "student and teacher; name pairs {student's module: teacher's}"
            )
        return torch.stack(losses).mean()

    def remove(self) -> None:
        """Take the hooks off both models."""
        for hook in self._hooks:
            hook.remove()
        self._seen.clear()
