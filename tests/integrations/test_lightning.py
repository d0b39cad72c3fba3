"""The callbacks in a real Trainer, of each package that is installed."""

from __future__ import annotations

import copy
import importlib
import logging
import sys
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from fastinfer.compress.prune import CubicSchedule
from fastinfer.integrations.lightning import distillation_callback, pruning_callback

PACKAGES = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}
DATA = [
    (torch.randn(16, 64, generator=torch.Generator().manual_seed(i)), torch.ones(16, 8))
    for i in range(6)
]


@pytest.fixture(params=PACKAGES)
def lightning(request, threads):
    threads(1)
    try:
        found = importlib.import_module(PACKAGES[request.param])
    except ImportError:
        # `make test` installs both; with VENV= it is whatever the interpreter has.
        pytest.skip(f"{request.param} is not installed")
    logging.getLogger(PACKAGES[request.param]).setLevel(logging.ERROR)
    found.package = request.param
    return found


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Linear(64, 8))


def module(lightning, weight=1.0):
    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = network()

        def training_step(self, batch, index):
            return weight * F.mse_loss(self.model(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)

    return Module()


def fit(lightning, model, tmp_path, *callbacks, checkpoint=None, **options):
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=list(callbacks),
        **{"max_epochs": 1, **options},
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few workers, short epochs
        trainer.fit(model, DataLoader(DATA, batch_size=None), ckpt_path=checkpoint)
    return trainer


def pruning(lightning, end=4):
    return pruning_callback(
        "nm64", 0.75, CubicSchedule(1, end), package=lightning.package, module="model"
    )


def test_pruning(lightning, tmp_path):
    model, callback = module(lightning), pruning(lightning)
    keys = list(model.state_dict())
    fit(lightning, model, tmp_path, callback)
    assert callback.pruner.finished and callback.pruner.steps == 6
    for index in (0, 2):
        assert ((model.model[index].weight != 0).sum(1) == 16).all()
    assert (model.model[3].weight != 0).all() and list(model.state_dict()) == keys
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


def test_steps_are_those_of_the_optimizer(lightning, tmp_path):
    callback = pruning(lightning)
    fit(lightning, module(lightning), tmp_path, callback, accumulate_grad_batches=2)
    assert callback.pruner.steps == 3 and not callback.pruner.finished


def test_pruning_goes_on_from_a_checkpoint(lightning, tmp_path):
    whole = module(lightning)
    fit(lightning, whole, tmp_path, pruning(lightning, 9), max_epochs=2)
    half, callback = module(lightning), pruning(lightning, 9)
    fit(lightning, half, tmp_path, callback).save_checkpoint(tmp_path / "half.ckpt")
    assert callback.pruner.steps == 6
    rest, callback = module(lightning), pruning(lightning, 9)
    fit(lightning, rest, tmp_path, callback, max_epochs=2, checkpoint=tmp_path / "half.ckpt")
    assert callback.pruner.steps == 12
    for mine, theirs in zip(rest.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_the_loss_is_added(lightning, tmp_path):
    """One step: its gradient is that of task and distance together."""
    teacher = network()
    with torch.no_grad():
        for p in teacher.parameters():
            p += 0.1
    weights = copy.deepcopy(teacher.state_dict())
    model = module(lightning)
    x, y = DATA[0]
    wanted = copy.deepcopy(model.model)
    loss = F.mse_loss(wanted(x), y)
    t = teacher(x).detach()
    loss = loss + 0.5 * (wanted(x) - t).square().mean() / t.square().mean()
    loss.backward()
    callback = distillation_callback(
        teacher, student="model", weight=0.5, loss="mse", package=lightning.package
    )
    trainer = fit(lightning, model, tmp_path, callback, max_steps=1)
    for p, w in zip(model.model.parameters(), wanted.parameters(), strict=True):
        assert torch.allclose(p, w - 0.05 * w.grad, atol=1e-6)
    assert callback.taken == {"output": "mse"} and "distill_loss" in trainer.callback_metrics
    assert all(torch.equal(v, weights[k]) for k, v in teacher.state_dict().items())
    assert not any(m._forward_hooks for m in (*model.modules(), *teacher.modules()))


def test_the_student_comes_nearer(lightning, tmp_path):
    torch.manual_seed(5)
    teacher = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Linear(64, 8))
    callback = distillation_callback(
        teacher, student="model", loss="mse", features=["0"], package=lightning.package
    )
    model = module(lightning, weight=0.0)

    def distance():
        with torch.no_grad():
            return sum(float((model.model(x) - teacher(x)).square().mean()) for x, _ in DATA)

    before = distance()
    fit(lightning, model, tmp_path, callback, pruning(lightning), max_epochs=10,
        accumulate_grad_batches=2)  # fmt: skip
    assert distance() < 0.5 * before and int((model.model[0].weight == 0).sum()) == 48 * 64


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"student": ""}, ValueError, "expected training_step to call 'the module'"),
        ({"student": "model", "features": ["9"]}, ValueError, "modules, got '9'"),
    ],
)
def test_what_does_not_fit_is_said(lightning, tmp_path, options, error, text):
    model = module(lightning)
    callback = distillation_callback(network(), package=lightning.package, **options)
    with pytest.raises(error, match=text):
        fit(lightning, model, tmp_path, callback)
    assert not any(m._forward_hooks for m in model.modules())


def test_bad_arguments(lightning):
    package = lightning.package
    for call, text in (
        (lambda: distillation_callback(network(), weight=-1.0, package=package), "weight"),
        (lambda: distillation_callback(network(), loss="l1", package=package), "loss"),
        (lambda: distillation_callback(network(), package="torch"), "package: expected one of"),
    ):
        with pytest.raises(ValueError, match=text):
            call()
    with pytest.raises(TypeError, match=r"teacher: expected an nn\.Module, got int"):
        distillation_callback(3, package=package)


def test_without_either_package(monkeypatch):
    for name in [*sys.modules]:
        if name.split(".")[0] in PACKAGES:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pruning_callback: needs .* pip install lightning"):
        pruning_callback("nm64", 0.5, CubicSchedule(0, 1))
    with pytest.raises(ImportError, match="and pytorch_lightning is not installed"):
        distillation_callback(network(), package="pytorch_lightning")
