"""Every wrong argument is named before any work, and models are left as they were."""

from __future__ import annotations

import copy

import bars
import pytest
import torch
from torch import nn

from fastinfer.compress.distill import distill, finetune, reconstruct
from fastinfer.compress.prune import CubicSchedule, GradualPruner

IMAGES = [x for x, _ in bars.batches(64, 32, 3)]


def frozen():
    return bars.network().requires_grad_(False)


def pruner_of(model, end):
    return GradualPruner(model, "nm64", 0.5, CubicSchedule(0, end))


CASES = [
    ({"student": 3}, TypeError, "distill: student: expected an nn.Module, got int"),
    ({"teacher": None}, TypeError, "distill: teacher: expected an nn.Module, got NoneType"),
    ({"student": frozen()}, ValueError, "parameters that require gradients, got none; a conv"),
    ({"loader": []}, ValueError, "loader: expected at least one batch, got an empty iterable"),
    ({"loader": IMAGES[0]}, TypeError, "loader: .*got Tensor; put a single batch in a list"),
    (
        {"loader": iter(IMAGES)},
        TypeError,
        r"read once per epoch, got list_iterator.*list\(\.\.\.\)",
    ),
    ({"loader": [5]}, TypeError, "expected batches that are tensors, .* got int"),
    ({"loader": 7}, TypeError, "loader: expected an iterable of batches, got int"),
    ({"loader": [torch.full((4, 1, 12, 12), torch.nan)]}, ValueError, "got nan of the first batch"),
    ({"epochs": 0}, ValueError, "distill: epochs: expected 1 or more, got 0"),
    ({"epochs": 1.5}, TypeError, "epochs: expected a whole number, got 1.5"),
    ({"epochs": True}, TypeError, "epochs: expected a whole number, got True"),
    ({"steps": 0}, ValueError, "steps: expected 1 or more, got 0"),
    ({"lr": -1.0}, ValueError, "lr: expected a number 0..inf, got -1.0"),
    ({"lr": float("nan")}, ValueError, "lr: expected a number"),
    ({"warmup": 1.5}, ValueError, "warmup: expected a number 0..1, got 1.5"),
    ({"clip": 0.0}, ValueError, "clip: expected a norm > 0 or None, got 0.0"),
    ({"decay": "linear"}, ValueError, r"decay: expected one of \['cosine', 'constant'\]"),
    ({"precision": "fp16"}, ValueError, "precision: expected one of .* got 'fp16'"),
    ({"batch_norm": "eval"}, ValueError, "batch_norm: expected one of"),
    ({"loss": "l1"}, ValueError, r"loss: expected one of \['auto', 'kl', 'mse', 'cosine'\]"),
    ({"temperature": 0}, ValueError, "temperature: expected a number > 0, got 0"),
    ({"task_loss": 3}, TypeError, "task_loss: expected a function"),
    ({"task_loss": lambda y, b: y}, TypeError, r"task_loss: .*a scalar tensor, got \[32, 6\]"),
    ({"task_weight": -1.0}, ValueError, "task_weight: expected a number >= 0"),
    ({"features": ["9"]}, ValueError, "names of the student's modules, got '9'; it has"),
    ({"features": {"3": "x"}}, ValueError, "names of the teacher's modules, got 'x'"),
    ({"features": {"3": "0", "7": "3"}}, ValueError, r"features: 3: teacher: output: .*\[32, 64"),
    ({"features": []}, ValueError, "features: expected at least one name"),
    ({"features": 3}, TypeError, "features: expected a dict, a list of names or 'auto'"),
    ({"features": "3"}, TypeError, "features: expected a dict, a list of names or 'auto'"),
    ({"optimizer": 3}, TypeError, "optimizer: expected a function, got 3"),
    ({"optimizer": lambda p: 3}, TypeError, "returns an Optimizer, got one that returns int"),
    ({"inputs": 3}, TypeError, "inputs: expected a function of a batch"),
    ({"evaluate": 3}, TypeError, "evaluate: expected a function"),
    ({"evaluate": len, "held_out": IMAGES}, ValueError, "expected one of them, got both"),
    ({"held_out": []}, ValueError, "held_out: expected at least one batch"),
    ({"held_out": IMAGES[0]}, TypeError, "held_out: .*put a single batch in a list"),
    ({"patience": 2}, ValueError, "expected with them evaluate or held_out"),
    ({"pruner": 3}, TypeError, "pruner: expected a GradualPruner"),
    ({"pruner": pruner_of(bars.network(), 0)}, ValueError, "one of the model that is trained"),
    ({"seed": "a"}, TypeError, "seed: expected a whole number"),
    ({"learning_rate": 1}, TypeError, r"learning_rate: expected an option of \['epochs'"),
    (
        {"teacher": nn.Sequential(*bars.network()[:7], nn.Linear(576, 7))},
        ValueError,
        r"teacher: output: expected the student's shape \[32, 6\], got \[32, 7\]",
    ),
]


@pytest.mark.parametrize(("changed", "error", "text"), CASES)
def test_named_before_any_work(changed, error, text):
    given = {
        "student": bars.network(), "teacher": bars.network(), "loader": IMAGES, "epochs": 1,
        **changed,
    }  # fmt: skip
    models = [given["student"], given["teacher"]]
    before = [copy.deepcopy(m.state_dict()) if isinstance(m, nn.Module) else None for m in models]
    with pytest.raises(error, match=text):
        distill(given.pop("student"), given.pop("teacher"), given.pop("loader"), **given)
    for model, state in zip(models, before, strict=True):
        if state is None:
            continue
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
        assert all(module.training for module in model.modules())
        assert not any(module._forward_hooks for module in model.modules())


def test_a_pruner_must_be_done_in_time():
    model = bars.network()
    with pytest.raises(ValueError, match="ends before the last of 2 steps, got end=2"):
        distill(model, bars.network(), IMAGES, epochs=1, pruner=pruner_of(model, 2))


def test_a_student_of_the_teachers_weights():
    student, teacher = bars.network(), bars.network()
    student[3] = teacher[3]
    with pytest.raises(ValueError, match=r"weights of its own, got '3\.weight'.*deepcopy"):
        distill(student, teacher, IMAGES, epochs=1)


def test_a_loader_without_length():
    class Loader:
        def __iter__(self):
            return iter(IMAGES)

    with pytest.raises(ValueError, match=r"steps: .*no len\(\)"):
        distill(bars.network(), bars.network(), Loader(), epochs=1)


def test_unclear_batches():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x, scale=None):
            return self.layer(x)

    pair = (torch.ones(2, 4), torch.ones(2, 4))
    with pytest.raises(ValueError, match="tuple of 2 where forward requires 1 and takes 2"):
        distill(Two(), Two(), [pair], epochs=1)


def test_features_of_a_module_that_is_never_called():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x):
            return self.used(x)

    data = [torch.ones(2, 4)]
    with pytest.raises(ValueError, match="the student's 'unused' is not called as a module"):
        distill(Unused(), Unused(), data, epochs=1, features=["unused"])
    distill(Unused(), Unused(), data, epochs=1, features="auto")  # leaves it out


def test_finetune():
    with pytest.raises(TypeError, match="finetune: loss: expected a function"):
        finetune(bars.network(), IMAGES, epochs=1, loss="mse")
    with pytest.raises(TypeError, match=r"finetune: loss: .*a scalar tensor, got \[32, 6\]"):
        finetune(bars.network(), IMAGES, epochs=1, loss=lambda y, b: y)
    with pytest.raises(ValueError, match="finetune: model: expected parameters"):
        finetune(frozen(), IMAGES, epochs=1, loss=lambda y, b: y.sum())


@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        ({"batches": IMAGES[:1]}, ValueError, r"expected two or more, .* got 1; split"),
        ({"batches": []}, ValueError, "expected two or more"),
        ({"blocks": ["9"]}, ValueError, "got '9', which the student does not have"),
        ({"blocks": "layer"}, ValueError, "expected a list of names or 'auto'"),
        ({"held_out": 1.0}, ValueError, "held_out: expected a share 0..1"),
        ({"steps": 0}, ValueError, "reconstruct: steps: expected 1 or more"),
        ({"epochs": 3}, TypeError, "reconstruct: epochs: expected no such option"),
        ({"checkpoint": "x"}, TypeError, "reconstruct: checkpoint: expected no such option"),
        ({"student": frozen()}, ValueError, "parameters that require gradients, got none"),
        ({"student": 3}, TypeError, "student: expected an nn.Module"),
    ],
)
def test_reconstruct(changed, error, text):
    given = {"student": bars.network(), "batches": IMAGES, **changed}
    with pytest.raises(error, match=text):
        reconstruct(given.pop("student"), bars.network(), given.pop("batches"), **given)
