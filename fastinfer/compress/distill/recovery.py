"""Training that gives a compressed model its accuracy back: `distill` and `finetune`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from fastinfer.compress.distill.features import Features
from fastinfer.compress.distill.inputs import BatchReader
from fastinfer.compress.distill.losses import LossFunction, OutputLoss
from fastinfer.compress.distill.objective import DistillObjective, TaskLoss, TaskObjective
from fastinfer.compress.distill.run_state import model_identity, weights_digest
from fastinfer.compress.distill.trainer import Trainer
from fastinfer.compress.distill.training import make_training


def distill(
    student: nn.Module,
    teacher: nn.Module,
    loader: Iterable[Any],
    *,
    epochs: int,
    loss: str | LossFunction = "auto",
    task_loss: TaskLoss | None = None,
    task_weight: float = 1.0,
    temperature: float = 2.0,
    features: Features | None = None,
    feature_weight: float = 1.0,
    **options: Any,
) -> nn.Module:
    """Return the student, trained in place to answer as the teacher does; its zeros stay zeros.

        pruned = fastinfer.distill(pruned, original, loader, epochs=3, held_out=other_batches)

    Args:
        student: any model of the teacher's inputs and outputs; in the mode it was in afterwards.
        teacher: runs in eval mode without gradients, and is left as it was.
        loader: batches, to be read once per epoch: a DataLoader or a list, labelled or not. Of a
            tuple the model gets as many values as its forward requires, of a dict what its forward
            has names for; see the option inputs.
        epochs: passes over loader.
        loss: of the outputs: "kl" of logits [..., classes], "mse" as a share of the teacher's mean
            square, "cosine" of rows, or a function (student's output, teacher's output) -> scalar.
            "auto" takes cosine for rows of length 1, kl for other [batch, classes] and outputs
            named logits, mse for all else; `on_epoch` and the progress bar say which.
        task_loss: (student's output, batch) -> scalar, added with task_weight.
        temperature: of kl.
        features: hidden states to match too, by normalised MSE, with feature_weight: {student's
            module: teacher's}, names that both have, or "auto" for the blocks that both have.
        options: the fields of `fastinfer.compress.distill.Training`, by name:
            steps, lr (5e-4), weight_decay (0.01), optimizer (AdamW), warmup (0.1), decay
            ("cosine"), clip (1.0), precision ("fp32" | "bf16"), batch_norm ("update" | "freeze"),
            hold_zeros (True), pruner, inputs, evaluate, held_out, evaluate_every, patience,
            checkpoint, every_steps (100), seed (0), on_epoch, progress.
            With evaluate or held_out the student has its best weights at the end, never worse than
            at the start. With checkpoint a call that was killed goes on when it is made again.

    Raises:
        ValueError, TypeError: an argument is wrong, or student and teacher do not fit; the message
            names what. Nothing was changed then.
        DivergedError: a loss became NaN or infinite, at the batch named; the student has its best
            weights, or those after the last whole epoch.
        CheckpointError: checkpoint is damaged or of another run, and how it differs.

    Source: Hinton et al., Distilling the knowledge in a neural network (2015); Romero et al.,
        FitNets (2015) for features.
    """
    what = "distill"
    check_model(what, "student", student)
    check_model(what, "teacher", teacher)
    check_apart(what, student, teacher)
    training = make_training(what, {"epochs": epochs, **options})
    objective = DistillObjective(
        what,
        student,
        teacher,
        BatchReader(what, student, training.inputs),
        outputs=OutputLoss(what, loss, temperature),
        features=features,
        feature_weight=feature_weight,
        task_loss=task_loss,
        task_weight=task_weight,
    )
    identity: dict[str, Any] = {"function": what}
    if training.checkpoint is not None:
        identity |= {
            "temperature": temperature,
            "task_weight": task_weight,
            "feature_weight": feature_weight,
            "features": objective.pairs,
            **model_identity("teacher", teacher),
            "the teacher's weights": weights_digest(teacher),
        }
    Trainer(what, student, loader, objective, training, identity).run()
    return student


def finetune(
    model: nn.Module, loader: Iterable[Any], *, epochs: int, loss: TaskLoss, **options: Any
) -> nn.Module:
    """Return the model, trained in place on a loss of its own; its zeros stay zeros.

        fastinfer.finetune(pruned, loader, epochs=3, loss=lambda y, b: cross_entropy(y, b[1]))

    Args:
        model: any; in the mode it was in afterwards.
        loader: batches, to be read once per epoch; how the model is called with one is as in
            `distill`.
        epochs: passes over loader.
        loss: (the model's output, batch) -> scalar.
        options: as of `distill`.

    Raises:
        As `distill`.
    """
    what = "finetune"
    check_model(what, "model", model)
    training = make_training(what, {"epochs": epochs, **options})
    objective = TaskObjective(what, model, loss, BatchReader(what, model, training.inputs))
    Trainer(what, model, loader, objective, training, {"function": what}).run()
    return model


def check_model(what: str, argument: str, model: object) -> None:
    """Raise TypeError unless model is a module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"{what}: {argument}: expected an nn.Module, got {type(model).__name__}")


def check_apart(what: str, student: nn.Module, teacher: nn.Module) -> None:
    """Raise ValueError where training the student would change the teacher."""
    trained = {p.data_ptr(): name for name, p in student.named_parameters() if p.requires_grad}
    for name, parameter in teacher.named_parameters():
        if parameter.numel() and parameter.data_ptr() in trained:
            raise ValueError(
                f"{what}: teacher: expected weights of its own, got {name!r}, which is the "
                "student's; pass copy.deepcopy of the original, made before pruning"
            )
