"""How far a student's outputs are from its teacher's: one number, and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils import _pytree as pytree

LossName = Literal["kl", "mse", "cosine"]
#: (student's output, teacher's output) -> scalar.
LossFunction = Callable[[Any, Any], Tensor]
NAMES = ("kl", "mse", "cosine")
#: Rows whose norms, or sums, are as near to 1 as this are normalised.
NEAR_ONE = 1e-2


def kl_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)), the mean over rows.

    Args:
        student, teacher: [..., classes] float logits.
        temperature: T > 0; T^2 keeps gradients of one size whatever it is.

    Source: Hinton et al., Distilling the knowledge in a neural network (2015), section 2.
    """
    log_p = functional.log_softmax(teacher.float() / temperature, -1).flatten(0, -2)
    log_q = functional.log_softmax(student.float() / temperature, -1).flatten(0, -2)
    divergence = functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def mse_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared error as a share of the teacher's mean square: 0 is equal.

    Where the teacher is zero altogether it is the mean squared error itself.

    Args:
        student, teacher: float tensors of one shape.
    """
    teacher = teacher.float()
    power = teacher.square().mean()
    return (student.float() - teacher).square().mean() / torch.where(power > 0, power, 1.0)


def cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return 1 - cosine of the angle between rows, the mean over rows.

    Args:
        student, teacher: [..., features] float.
    """
    return 1 - functional.cosine_similarity(student.float(), teacher.float(), dim=-1).mean()


def chosen_loss(name: str, teacher: Tensor) -> LossName:
    """Return the loss that suits an output, told from its name and the teacher's values.

    Rows of length 1 are embeddings (cosine). Outputs named logits and [batch, classes] others are
    scores of classes (kl). All else, as maps, hidden states and single numbers, is mse.

    Args:
        name: where the output stands in the model's result, "" for the result itself.
        teacher: its value, of any shape.
    """
    if teacher.dim() < 2 or teacher.shape[-1] < 2:
        return "mse"
    rows = teacher.detach().float().flatten(0, -2)
    if bool(((rows.norm(dim=-1) - 1).abs() < NEAR_ONE).all()) and bool((rows < 0).any()):
        return "cosine"
    return "kl" if "logits" in name or teacher.dim() == 2 else "mse"


def is_distribution(teacher: Tensor) -> bool:
    """Return True when rows [..., classes] are probabilities, which a softmax left."""
    sums = teacher.sum(-1)
    return bool((teacher >= 0).all()) and bool(((sums - 1).abs() < NEAR_ONE).all())


class OutputLoss:
    """Sums the loss of each of a model's outputs.

    Args:
        what: the function this is for, in messages.
        loss: "auto" chooses one for every output at the first call; a name is for all of them; a
            function gets both results whole.
        temperature: of kl.
    """

    def __init__(self, what: str, loss: str | LossFunction, temperature: float) -> None:
        if not callable(loss) and loss not in ("auto", *NAMES):
            raise ValueError(
                f"{what}: loss: expected one of {['auto', *NAMES]} or a function, got {loss!r}"
            )
        if not temperature > 0:
            raise ValueError(f"{what}: temperature: expected a number > 0, got {temperature}")
        self._what, self._loss, self._temperature = what, loss, temperature
        self._probabilities: set[str] = set()
        #: Output -> the loss taken for it, from the first call on.
        self.taken: dict[str, str] = {}

    def __call__(self, student: Any, teacher: Any) -> Tensor:
        """Return the loss of a student's result, given the teacher's of the same inputs."""
        if callable(self._loss):
            self.taken = {"output": callable_name(self._loss)}
            return scalar(self._what, "loss", self._loss(student, teacher))
        pairs = matched(self._what, student, teacher)
        if not self.taken:
            self._choose(pairs)
        return torch.stack([self._one(name, s, t) for name, s, t in pairs]).sum()

    def _choose(self, pairs: list[tuple[str, Tensor, Tensor]]) -> None:
        for name, _, t in pairs:
            loss = chosen_loss(name, t) if self._loss == "auto" else str(self._loss)
            if loss == "kl" and is_distribution(t):
                self._probabilities.add(name)
            self.taken[name] = loss

    def _one(self, name: str, student: Tensor, teacher: Tensor) -> Tensor:
        loss = self.taken[name]
        if loss == "mse":
            return mse_loss(student, teacher)
        if loss == "cosine":
            return cosine_loss(student, teacher)
        if name in self._probabilities:
            tiny = torch.finfo(torch.float32).tiny
            student, teacher = (x.float().clamp_min(tiny).log() for x in (student, teacher))
        return kl_loss(student, teacher, self._temperature)


def matched(what: str, student: Any, teacher: Any) -> list[tuple[str, Tensor, Tensor]]:
    """Return (name, student's, teacher's) of every floating-point output.

    Raises:
        ValueError: structure or a shape differs, or there is none.
    """
    ours, our_tree = pytree.tree_flatten_with_path(student)
    theirs, their_tree = pytree.tree_flatten_with_path(teacher)
    if our_tree != their_tree:
        raise ValueError(
            f"{what}: teacher: expected outputs of the student's structure, {structure(student)}, "
            f"got {structure(teacher)}; pass loss= as a function of both"
        )
    pairs = []
    for (path, s), (_, t) in zip(ours, theirs, strict=True):
        name = "output" + pytree.keystr(path)
        if not (isinstance(s, Tensor) and isinstance(t, Tensor) and t.is_floating_point()):
            continue
        if s.shape != t.shape:
            raise ValueError(
                f"{what}: teacher: {name}: expected the student's shape {list(s.shape)}, got "
                f"{list(t.shape)}"
            )
        pairs.append((name, s, t))
    if not pairs:
        raise ValueError(
            f"{what}: teacher: expected floating-point tensors among its outputs, got "
            f"{structure(teacher)}"
        )
    return pairs


def structure(value: Any) -> str:
    """Return what a result is made of: shapes of tensors, names of other types."""
    shown = pytree.tree_map(
        lambda x: list(x.shape) if isinstance(x, Tensor) else type(x).__name__, value
    )
    return str(shown)


def scalar(what: str, argument: str, value: object) -> Tensor:
    """Return a user's loss as it came; TypeError when it is no tensor of one element."""
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{what}: {argument}: expected it to return a scalar tensor, got {got}")
    return value.reshape(())


def callable_name(function: object) -> str:
    """Return a name that is the same in another process: no address, and no __main__."""
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)
