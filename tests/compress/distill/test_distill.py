"""distill and finetune: students improve on data they have not seen, and zeros stay zeros."""

from __future__ import annotations

import copy
import random

import bars
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import fastinfer
from fastinfer.compress.distill import DivergedError, Training, distill, finetune
from fastinfer.compress.prune import CubicSchedule, GradualPruner


def unlabelled(count=320, size=32, seed=7):
    return [images for images, _ in bars.batches(count, size, seed)]


def test_a_pruned_student_recovers_without_labels(teacher):
    student = bars.pruned(teacher)
    before, zeros = bars.accuracy(student.eval()), bars.zeros(student)
    assert before < bars.accuracy(teacher) - 0.1  # or there is nothing to recover
    records = []
    student.train()
    returned = distill(student, teacher, unlabelled(), epochs=4, lr=2e-3, on_epoch=records.append)
    assert returned is student and all(m.training for m in student.modules())
    assert bars.accuracy(student.eval()) > bars.accuracy(teacher) - 0.05
    for name, zero in zeros.items():
        assert torch.equal(student.get_parameter(name) == 0, zero)
    assert [(r.epoch, r.step) for r in records] == [(1, 10), (2, 20), (3, 30), (4, 40)]
    assert records[-1].loss < 0.8 * records[0].loss
    assert records[0].losses == {"output": "kl"} and records[0].score is None


def test_features_and_a_task_help_too(teacher):
    student = bars.pruned(teacher)
    records = []
    distill(
        student, teacher, bars.batches(320, 32, 7), epochs=4, lr=2e-3, features={"4": "4"},
        task_loss=bars.task_loss, task_weight=0.5, on_epoch=records.append,
    )  # fmt: skip
    assert bars.accuracy(student.eval()) > bars.accuracy(teacher) - 0.05
    assert records[0].losses["features"] == "mse of 1 modules"
    assert records[0].losses["task"] == "task_loss"
    assert not any(m._forward_hooks for m in student.modules())


def test_matching_features_brings_them_nearer(teacher):
    images, _ = bars.pictures(100, 50)

    def distance(features):
        student = bars.pruned(teacher)
        distill(
            student, teacher, unlabelled(), epochs=2, lr=2e-3, features=features,
            feature_weight=10.0,
        )  # fmt: skip
        with torch.no_grad():
            s, t = (model.eval()[:6](images) for model in (student, teacher))
        return float((s - t).square().mean() / t.square().mean())

    matched = distance("auto")
    assert matched < distance(None) and matched == distance(["0", "3", "7"])


def test_finetune_with_labels(teacher):
    student = bars.pruned(teacher)
    zeros = bars.zeros(student)
    finetune(student, bars.batches(320, 32, 7), epochs=3, loss=bars.task_loss, lr=2e-3)
    assert bars.accuracy(student.eval()) > bars.accuracy(teacher) - 0.05
    assert torch.equal(student[3].weight == 0, zeros["3.weight"])


def test_zeros_are_free_when_asked(teacher):
    student = bars.pruned(teacher)
    distill(student, teacher, unlabelled(64), epochs=1, hold_zeros=False)
    assert int((student[3].weight == 0).sum()) == 0


def test_a_gradual_pruner_in_training(teacher):
    student = copy.deepcopy(teacher)
    pruner = GradualPruner(
        student, "nm64", 62 / 64, CubicSchedule(0, 30, every=5), dense_ends=False
    )
    scores = []

    def evaluate(model):
        scores.append((pruner.sparsity, bars.accuracy(model)))
        return scores[-1][1]

    distill(student, teacher, unlabelled(), epochs=4, lr=2e-3, pruner=pruner, evaluate=evaluate)
    kept = (student[3].weight != 0).movedim(1, -1).reshape(64, 9, 64).sum(-1)
    assert (kept == 2).all() and pruner.finished
    # Dense weights have the best figure, and are not the ones that are kept.
    assert [sparsity for sparsity, _ in scores] == sorted(s for s, _ in scores)
    assert bars.accuracy(student) == scores[-1][1] > bars.accuracy(teacher) - 0.1


@pytest.mark.parametrize("by", ["evaluate", "held_out"])
def test_the_best_weights_are_kept(teacher, by):
    """A rate that is far too high makes it worse: what comes back is the start."""
    student = copy.deepcopy(teacher)
    before = copy.deepcopy(student.state_dict())
    judge = {"evaluate": bars.accuracy} if by == "evaluate" else {"held_out": unlabelled(64, 64, 3)}
    records = []
    distill(
        student, teacher, unlabelled(128), epochs=3, lr=10.0, warmup=0.0, on_epoch=records.append,
        **judge,
    )  # fmt: skip
    assert not any(r.is_best for r in records)
    for name, value in student.state_dict().items():
        assert torch.equal(value, before[name])


def test_patience_ends_it(teacher):
    figures = iter([0.1, 0.2, 0.15, 0.12, 0.3])
    records = []
    student = bars.pruned(teacher)
    distill(
        student, teacher, unlabelled(64), epochs=20, evaluate=lambda m: next(figures), patience=2,
        on_epoch=records.append,
    )  # fmt: skip
    assert [r.score for r in records] == [0.2, 0.15, 0.12]
    assert [r.is_best for r in records] == [True, False, False]


def test_evaluations_between_epochs(teacher):
    steps = []
    student = bars.pruned(teacher)

    def evaluate(model):
        steps.append(int(model[1].num_batches_tracked))
        return 0.0

    start = int(student[1].num_batches_tracked)
    distill(student, teacher, unlabelled(), epochs=1, evaluate=evaluate, evaluate_every=4)
    assert [step - start for step in steps] == [0, 4, 8, 10]


def test_nan_scores_are_never_the_best(teacher):
    student = bars.pruned(teacher)
    figures = iter([0.5, float("nan"), 0.4])
    before = student[0].weight.detach().clone()
    distill(student, teacher, unlabelled(64), epochs=2, evaluate=lambda m: next(figures))
    assert torch.equal(student[0].weight, before)


def test_a_nan_loss_stops_and_gives_the_best_weights_back(teacher):
    student = bars.pruned(teacher)
    kept = []
    bad = unlabelled(64)
    bad[1] = bad[1] * torch.nan

    class Loader:
        """The second batch is spoiled in the second epoch."""

        epoch = -1  # the check of the first batch is none

        def __len__(self):
            return 2

        def __iter__(self):
            self.epoch += 1
            return iter(bad if self.epoch == 2 else unlabelled(64))

    with pytest.raises(DivergedError, match=r"distill: .* loss nan at epoch 2, batch 2 \(step 4\)"):
        distill(
            student, teacher, Loader(), epochs=3,
            on_epoch=lambda r: kept.append(copy.deepcopy(student.state_dict())),
        )  # fmt: skip
    for name, value in student.state_dict().items():
        assert torch.equal(value, kept[0][name])


def test_an_infinite_gradient_stops_it_too():
    model = nn.Linear(2, 1)
    before = model.weight.detach().clone()

    def root(output, batch):  # finite at 0, with no finite slope
        return (output - output.detach()).abs().sqrt().sum()

    with pytest.raises(DivergedError, match="gradient of norm nan at epoch 1, batch 1"):
        finetune(model, [torch.ones(1, 2)], epochs=1, loss=root)
    assert torch.equal(model.weight, before)


def test_batch_norms_freeze_or_update(teacher):
    def statistics(option):
        student = bars.pruned(teacher)
        distill(student, teacher, unlabelled(64), epochs=1, batch_norm=option)
        return student[1].running_mean

    assert torch.equal(statistics("freeze"), teacher[1].running_mean)
    assert not torch.equal(statistics("update"), teacher[1].running_mean)


def test_bf16_learns_too(teacher):
    student = bars.pruned(teacher)
    distill(student, teacher, unlabelled(), epochs=4, lr=2e-3, precision="bf16")
    assert student[3].weight.dtype == torch.float32
    assert bars.accuracy(student.eval()) > bars.accuracy(teacher) - 0.05


def test_an_optimizer_of_the_users(teacher):
    made = []

    def optimizer(parameters):
        made.append(torch.optim.SGD(parameters, 0.1, momentum=0.9))
        return made[0]

    rates = []
    student = bars.pruned(teacher)
    zeros = bars.zeros(student)
    distill(
        student, teacher, unlabelled(), epochs=2, optimizer=optimizer, warmup=0.5,
        on_epoch=lambda r: rates.append(r.lr),
    )  # fmt: skip
    # The last step of the warm-up, and that before the cosine's end.
    assert rates == pytest.approx([0.1, 0.1 * 0.5 * (1 + np.cos(np.pi * 0.9))])
    assert torch.equal(student[3].weight == 0, zeros["3.weight"])


def test_steps_bound_a_loader_of_no_length(teacher):
    class Endless:
        def __iter__(self):
            return iter(unlabelled(64))

    records = []
    student = bars.pruned(teacher)
    distill(student, teacher, Endless(), epochs=9, steps=5, on_epoch=records.append)
    assert [r.step for r in records] == [2, 4, 5]


def test_seeded_and_the_callers_random_state_is_left(teacher):
    images, labels = bars.pictures(96, 5)
    loader = DataLoader(TensorDataset(images, labels), 32, shuffle=True)

    def run(seed):
        student = bars.pruned(teacher)
        distill(student, teacher, loader, epochs=2, seed=seed)
        return student[3].weight

    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    wanted = (torch.rand(1), np.random.rand(), random.random())
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    first = run(0)
    assert (torch.rand(1), np.random.rand(), random.random()) == wanted
    assert torch.equal(run(0), first) and not torch.equal(run(1), first)


class Encoder(nn.Module):
    """Two inputs, an embedding of length 1."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])

    def forward(self, x, mask, scale=1.0):
        for layer in self.layers:
            x = layer(x).tanh()
        return {"embedding": F.normalize((x * mask[..., None]).sum(1) * scale, dim=-1)}


@pytest.mark.parametrize("form", ["tuple", "labelled", "nested", "dict", "inputs"])
def test_forms_of_batches(form):
    torch.manual_seed(0)
    teacher, student = Encoder(), Encoder()
    x, mask, label = torch.randn(16, 5, 8), torch.ones(16, 5), torch.zeros(16, dtype=torch.long)
    batch, options = {
        "tuple": ((x, mask), {}),
        "labelled": ([x, mask, label], {}),
        "nested": (((x, mask), label), {}),
        "dict": ({"x": x, "mask": mask, "labels": label}, {}),
        "inputs": ((label, mask, x), {"inputs": lambda b: (b[2], b[1])}),
    }[form]
    records = []
    distill(
        student, teacher, [batch] * 5, epochs=6, lr=1e-2, features="auto", on_epoch=records.append,
        **options,
    )  # fmt: skip
    assert records[0].losses["output['embedding']"] == "cosine"
    assert records[0].losses["features"] == "mse of 2 modules"
    assert records[-1].loss < records[0].loss / 2


def test_students_of_other_shapes(teacher):
    torch.manual_seed(1)
    student = nn.Sequential(
        nn.Conv2d(1, 16, 3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 9, bars.CLASSES)
    )
    distill(student, teacher, unlabelled(640), epochs=6, lr=5e-3, features=None)
    assert bars.accuracy(student.eval()) > 0.7  # chance is 0.17


def test_a_converted_student_has_the_zeros(teacher):
    student = bars.pruned(teacher)
    distill(student, teacher, unlabelled(64), epochs=1)
    images, _ = bars.pictures(32, 3)
    fast = fastinfer.convert(student.eval(), images, config="int8")
    assert fastinfer.compare(student, fast, images) is not None


def test_the_learning_rate():
    training = Training(epochs=1, warmup=0.2)
    factors = [training.factor(step, 10) for step in range(10)]
    assert factors[:3] == [0.5, 1.0, 1.0] and factors == [*factors[:2], *sorted(factors[2:])[::-1]]
    assert factors[6] == pytest.approx(0.5)
    assert Training(epochs=1, warmup=0.0, decay="constant").factor(9, 10) == 1.0
