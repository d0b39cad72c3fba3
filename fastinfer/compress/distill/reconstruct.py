"""Accuracy back from a handful of batches without labels: block by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fastinfer.compress.distill.blocks import find_blocks
from fastinfer.compress.distill.inputs import BatchReader, check_loader, to_device
from fastinfer.compress.distill.losses import matched, mse_loss
from fastinfer.compress.distill.recovery import check_apart, check_model
from fastinfer.compress.distill.trainer import Trainer
from fastinfer.compress.distill.training import make_training
from fastinfer.types.call import Call

#: Evaluations on held-out batches in the steps of a block, and how many without a new best end it.
EVALUATIONS, PATIENCE = 20, 4
#: Options of `Training` that a block's training decides itself.
_OWN = ("epochs", "held_out", "evaluate", "evaluate_every", "patience", "checkpoint", "pruner",
        "on_epoch")  # fmt: skip


@dataclass(frozen=True)
class BlockRecord:
    """What `on_block` is told: a block's error on held-out batches before and after its training.

    Errors are mean squared ones as shares of the mean square of what the teacher's block answers.
    """

    name: str
    before: float
    after: float
    steps: int


def reconstruct(
    student: nn.Module,
    teacher: nn.Module,
    batches: Iterable[Any],
    *,
    blocks: Sequence[str] | Literal["auto"] = "auto",
    steps: int = 200,
    lr: float = 1e-3,
    held_out: float = 0.25,
    on_block: Callable[[BlockRecord], None] | None = None,
    **options: Any,
) -> nn.Module:
    """Return the student, each block trained in place to answer as the teacher's does.

    One block after another, in the order of a call: its inputs are those that the student's
    blocks before it give, already trained, and the answers wanted are the teacher's on its own
    inputs, so that a block also makes up for the errors of those before it. Training stops when
    held-out batches gain no more, and the best weights are kept: a block is never worse on
    them than it was. BatchNorms keep their statistics; see `reestimate_batch_norm`.

    Args:
        student: as of `distill`, with the teacher's names of blocks.
        teacher: is left as it was.
        batches: at least two, without labels or with; a handful will do. All inputs of a block and
            answers to them are in memory at a time.
        blocks: names of modules, or "auto": children of Sequential and ModuleList, and layers
            outside of such; what a call does not reach, or reaches more than once, is left out.
        steps: of each block at most; a step takes one batch.
        lr: highest learning rate of a block.
        held_out: share of the batches, 0..1, that only judges: at least one, the last.
        on_block: is told a BlockRecord after each block.
        options: as of `distill`, without those of epochs, figures, checkpoints and pruners.

    Raises:
        ValueError, TypeError: as `distill`; or a block is not in both models, is not called, or is
            called more than once.

    Source: Li et al., BRECQ (2021), for blocks; errors of earlier blocks as targets: field notes
        of layer-wise OBS, asymmetric calibration in GPTAQ (2025).
    """
    what = "reconstruct"
    check_model(what, "student", student)
    check_model(what, "teacher", teacher)
    check_apart(what, student, teacher)
    wrong = sorted(set(options) & set(_OWN))
    if wrong:
        raise TypeError(f"{what}: {wrong[0]}: expected no such option, as every block has its own")
    training = make_training(what, {"batch_norm": "freeze", **options, "epochs": 1, "lr": lr,
                                    "steps": steps})  # fmt: skip
    if not 0 < held_out < 1:
        raise ValueError(f"{what}: held_out: expected a share 0..1 of the batches, got {held_out}")
    parameters = [p for p in student.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(f"{what}: student: expected parameters that require gradients, got none")
    reader = BatchReader(what, student, training.inputs)
    calls = [
        reader.call(to_device(batch, parameters[0].device))
        for batch in check_loader(what, "batches", batches)
    ]
    if len(calls) < 2:
        raise ValueError(
            f"{what}: batches: expected two or more, as some judge only, got {len(calls)}; split "
            "it: batch.split(8)"
        )
    judged = min(len(calls) - 1, max(1, round(held_out * len(calls))))
    modes = [(m, m.training) for model in (student, teacher) for m in model.modules()]
    student.eval()
    teacher.eval()
    try:
        for name in _ordered(what, student, teacher, calls[0], blocks):
            pairs = _pairs(what, student, teacher, name, calls)
            block = student.get_submodule(name)
            objective = BlockObjective(f"{what}: blocks: {name}", block)
            with torch.no_grad():
                before = _mean(objective, pairs[-judged:])
            made = make_training(what, {
                "batch_norm": "freeze", **options, "lr": lr, "steps": steps,
                "epochs": math.ceil(steps / (len(pairs) - judged)), "held_out": pairs[-judged:],
                "evaluate_every": max(1, steps // EVALUATIONS), "patience": PATIENCE,
            })  # fmt: skip
            trainer = Trainer(f"{what} {name}", block, pairs[:-judged], objective, made, {})
            trainer.run()
            block.eval()
            if on_block is not None:
                with torch.no_grad():
                    after = _mean(objective, pairs[-judged:])
                on_block(BlockRecord(name, before, after, trainer.steps))
    finally:
        for module, mode in modes:
            module.training = mode
    return student


class BlockObjective:
    """Distance of a block's answer to the one wanted; a batch is (call, outputs)."""

    def __init__(self, what: str, block: nn.Module) -> None:
        self._what, self._block = what, block
        self.taken = {"block": "mse"}

    def __enter__(self) -> BlockObjective:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __call__(self, batch: tuple[Call, Any]) -> Tensor:
        """Return the batch's loss."""
        (args, kwargs), wanted = batch
        # Blocks that work in place would spoil the inputs for the next epoch.
        args, kwargs = pytree.tree_map(
            lambda x: x.clone() if isinstance(x, Tensor) else x, (args, kwargs)
        )
        pairs = matched(self._what, self._block(*args, **kwargs), wanted)
        return torch.stack([mse_loss(s, t) for _, s, t in pairs]).sum()


def _mean(objective: BlockObjective, pairs: list[tuple[Call, Any]]) -> float:
    return sum(float(objective(pair)) for pair in pairs) / len(pairs)


class _Reached(Exception):
    """A call came to the module that was asked for, and need not go on."""


def _copied(value: Any) -> Any:
    return pytree.tree_map(lambda x: x.detach().clone() if isinstance(x, Tensor) else x, value)


@torch.no_grad()
def _pairs(
    what: str, student: nn.Module, teacher: nn.Module, name: str, calls: list[Call]
) -> list[tuple[Call, Any]]:
    """Return what the student's block is called with, and what the teacher's answers, per call."""
    inputs: list[Call] = []
    outputs: list[Any] = []

    def keep_inputs(module: nn.Module, args: Any, kwargs: Any) -> None:
        inputs.append(_copied((args, kwargs)))
        raise _Reached

    def keep_output(module: nn.Module, args: Any, output: Any) -> None:
        outputs.append(_copied(output))
        raise _Reached

    hooks = (
        student.get_submodule(name).register_forward_pre_hook(keep_inputs, with_kwargs=True),
        teacher.get_submodule(name).register_forward_hook(keep_output),
    )
    try:
        for args, kwargs in calls:
            for model in (student, teacher):
                try:
                    model(*args, **kwargs)
                except _Reached:
                    continue
                raise ValueError(f"{what}: blocks: {name!r} is not reached by every batch")
    finally:
        for hook in hooks:
            hook.remove()
    return list(zip(inputs, outputs, strict=True))


@torch.no_grad()
def _ordered(
    what: str, student: nn.Module, teacher: nn.Module, call: Call, blocks: Sequence[str] | str
) -> list[str]:
    """Return the blocks in the order in which a call reaches them.

    Raises:
        ValueError: a block that was named is not in both models or is not called once.
    """
    is_found = isinstance(blocks, str)
    if is_found and blocks != "auto":
        raise ValueError(f"{what}: blocks: expected a list of names or 'auto', got {blocks!r}")
    models = {"student": student, "teacher": teacher}
    known = {whose: dict(model.named_modules()) for whose, model in models.items()}
    names = find_blocks(student) if is_found else list(dict.fromkeys(blocks))
    seen: dict[str, list[str]] = {"student": [], "teacher": []}
    for name in names:
        for whose in models:
            if name not in known[whose] and not is_found:
                raise ValueError(
                    f"{what}: blocks: expected names of modules of both models, got {name!r}, "
                    f"which the {whose} does not have"
                )
    hooks = [
        known[whose][name].register_forward_pre_hook(
            lambda module, args, whose=whose, name=name: seen[whose].append(name)
        )
        for whose in models
        for name in names
        if name in known[whose]
    ]
    try:
        for model in models.values():
            model(*_copied(call)[0], **_copied(call)[1])
    finally:
        for hook in hooks:
            hook.remove()
    for name in names:
        counts = [seen[whose].count(name) for whose in models]
        if counts != [1, 1] and not is_found:
            raise ValueError(
                f"{what}: blocks: expected modules that a call reaches once, got {name!r}, which "
                f"is called {counts[0]} times in the student and {counts[1]} in the teacher"
            )
    ordered = [n for n in seen["student"] if seen["student"].count(n) == 1]
    ordered = [n for n in ordered if seen["teacher"].count(n) == 1]
    trained = [n for n in ordered if _is_trained(known["student"][n])]
    if not trained:
        raise ValueError(
            f"{what}: blocks: expected modules that both models have and call once, with "
            "parameters that require gradients, got none; name them"
        )
    return trained


def _is_trained(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())
