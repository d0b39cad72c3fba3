"""Checkpoints: killed runs go on bit for bit; what is damaged or of another run is refused."""

from __future__ import annotations

import copy
import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import bars
import pytest
import run_to_kill
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fastinfer.compress.distill import CheckpointError, distill, finetune
from fastinfer.compress.distill.checkpoint import read_checkpoint, write_checkpoint
from fastinfer.compress.prune import CubicSchedule, GradualPruner

RUN = Path(__file__).with_name("run_to_kill.py")
ROOT = Path(__file__).resolve().parents[3]


def kill_at(step, kind, *paths):
    """Start a run, kill it in this step or one of the next; return the step it had come to."""
    run = subprocess.Popen(
        [sys.executable, "-u", str(RUN), kind, *map(str, paths)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{RUN.parent}"},
    )  # fmt: skip
    reached = 0
    for line in run.stdout:
        if line.startswith("step "):
            reached = int(line.split()[1])
        if reached >= step:
            run.send_signal(signal.SIGKILL)
    run.wait()
    assert run.returncode == -signal.SIGKILL
    return reached


@pytest.mark.parametrize(("kind", "kills"), [("distill", (4, 9)), ("gradual", (7,))])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, capsys, kind, kills):
    """Dropout, shuffling and augmentation are random; best weights and momentum are kept."""
    result, whole = (tmp_path / f"{name}.safetensors" for name in ("resumed", "whole"))
    for kill in kills:
        reached = kill_at(kill, kind, result, tmp_path / "run.ckpt")
    run_to_kill.main(kind, result, tmp_path / "run.ckpt")
    lines = capsys.readouterr().out.splitlines()
    run_to_kill.main(kind, whole)
    # It went on from a checkpoint, written every third step, and said of each epoch the same.
    assert 1 < reached - 3 <= int(lines[0].split()[1]) <= reached + 1
    whole_lines = capsys.readouterr().out.splitlines()
    assert len(whole_lines) == 18 and whole_lines[-1].startswith("epoch 3")
    assert lines == whole_lines[-len(lines) :]
    ours, theirs = load_file(result), load_file(whole)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
    assert not list(tmp_path.glob(".*.tmp"))


def training(model, path, **options):
    loader = bars.batches(96, 32, 3)
    given = {"epochs": 2, "loss": bars.task_loss, "checkpoint": path, **options}
    return finetune(model, given.pop("loader", loader), **given)


class Stop(Exception):
    pass


def stopped(path, after=1, **options):
    """Write a checkpoint of a run that ends after this epoch."""

    def stop(record):
        if record.epoch > after:
            raise Stop

    model = bars.pruned(bars.network())
    with pytest.raises(Stop):
        training(model, path, on_epoch=stop, **options)
    return path


def test_a_finished_run_is_not_run_again(tmp_path):
    path = tmp_path / "run.ckpt"
    first = training(bars.pruned(bars.network()), path)
    records = []
    second = training(bars.pruned(bars.network()), path, on_epoch=records.append)
    assert not records
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    mode = path.stat().st_mode & 0o777
    assert mode & 0o600 == 0o600 and [p.name for p in tmp_path.iterdir()] == ["run.ckpt"]


def test_zeros_are_those_of_the_start(tmp_path):
    """A kept weight that is zero by chance is not held after a resumption."""
    path = stopped(tmp_path / "run.ckpt")
    document, tensors = read_checkpoint(path)
    kept = tensors["mask/3.weight"]
    one = tuple(kept.nonzero()[0])
    assert tensors["model/3.weight"][one] != 0
    tensors["model/3.weight"][one] = 0
    write_checkpoint(path, document, tensors)
    model = training(bars.pruned(bars.network()), path)
    assert torch.equal(model[3].weight != 0, kept)


def test_no_pickle_in_it(tmp_path):
    path = stopped(tmp_path / "run.ckpt")
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    assert header["__metadata__"]["format"] == "fastinfer-training"
    names = set(header) - {"__metadata__"}
    assert {"model/3.weight", "best/3.weight", "mask/3.weight"} <= names
    assert any(name.startswith("optimizer/state/") for name in names)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"epochs": 3}, r"differs in epochs: 2 there, 3 here"),
        ({"lr": 1e-3}, "differs in lr: 0.0005 there, 0.001 here"),
        ({"loss": lambda y, b: y.sum()}, "differs in loss: .*task_loss.* there"),
        ({"optimizer": lambda p: torch.optim.SGD(p, 0.1)}, "differs in optimizer"),
        ({"loader": bars.batches(128, 32, 3)}, "differs in steps: 6 there, 8 here"),
        ({"precision": "bf16"}, "differs in precision: fp32 there, bf16 here"),
        ({"evaluate": bars.accuracy}, "differs in evaluate: None there, accuracy here"),
    ],
)
def test_other_settings_are_refused(tmp_path, options, text):
    path = stopped(tmp_path / "run.ckpt")
    model = bars.pruned(bars.network())
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match=text):
        training(model, path, **options)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_other_models_are_refused(tmp_path):
    path = stopped(tmp_path / "run.ckpt")
    with pytest.raises(CheckpointError, match=r"zeros in model.3.weight: 97% there, 50% here"):
        training(bars.pruned(bars.network(), 0.5), path)
    wide = bars.network()
    wide[7] = nn.Linear(576, 7)
    with pytest.raises(CheckpointError, match=r"model.7.weight: float32 \[6, 576\] there"):
        training(wide, path)


def test_another_teacher_is_refused(tmp_path):
    teacher, path = bars.network().eval(), tmp_path / "run.ckpt"
    images = [x for x, _ in bars.batches(64, 32, 3)]
    distill(bars.pruned(teacher), teacher, images, epochs=1, checkpoint=path)
    with torch.no_grad():
        teacher[7].bias[0] += 1e-6
    with pytest.raises(CheckpointError, match="differs in the teacher's weights"):
        distill(bars.pruned(teacher), teacher, images, epochs=1, checkpoint=path)
    with pytest.raises(CheckpointError, match="differs in function: distill there"):
        training(bars.pruned(teacher), path)


def test_other_data_is_refused(tmp_path):
    path = tmp_path / "run.ckpt"
    calls = []

    def stop(output, batch):
        calls.append(0)
        if len(calls) == 4:  # the check, and three steps
            raise Stop
        return bars.task_loss(output, batch)

    with pytest.raises(Stop):
        training(bars.network(), path, loss=stop, every_steps=1)
    calls.append(0)
    with pytest.raises(CheckpointError, match="got another batch 2 in epoch 1"):
        training(bars.network(), path, loss=stop, every_steps=1, loader=bars.batches(96, 32, 4))


def damage(data, how):
    if how == "cut":
        return data[: len(data) // 2]
    if how == "bit":
        place = len(data) - 100
        return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]
    if how == "metadata":
        return data.replace(b'\\"step\\": 3', b'\\"step\\": 4')
    return {"text": b"hello", "empty": b"", "pickle": b"\x80\x04."}[how]


@pytest.mark.parametrize("how", ["cut", "bit", "metadata", "text", "empty", "pickle"])
def test_damage_is_found(tmp_path, how):
    path = stopped(tmp_path / "run.ckpt", after=1)
    data = path.read_bytes()
    damaged = damage(data, how)
    assert damaged != data
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"run\.ckpt: .*damaged.*remove it to start anew"):
        training(bars.pruned(bars.network()), path)


def test_foreign_files_and_folders_are_refused(tmp_path):
    path = tmp_path / "run.ckpt"
    save_file({"x": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="got another safetensors file"):
        training(bars.network(), path)
    save_file({"x": torch.ones(2)}, path, {"format": "fastinfer-training", "version": "2"})
    with pytest.raises(CheckpointError, match="expected version 1, got 2"):
        training(bars.network(), path)
    with pytest.raises(CheckpointError, match="which is a folder"):
        training(bars.network(), tmp_path)
    with pytest.raises(FileNotFoundError, match="finetune: checkpoint: expected a folder"):
        training(bars.network(), tmp_path / "no" / "run.ckpt")


def test_a_failed_write_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "run.ckpt"
    write_checkpoint(path, {"a": 1}, {"x": torch.ones(2)})

    def fail(descriptor):
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_checkpoint(path, {"a": 2}, {"x": torch.zeros(2)})
    assert read_checkpoint(path)[0] == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["run.ckpt"]


def test_tensors_of_every_kind_come_back(tmp_path):
    tied = torch.randn(3, 4)
    tensors = {
        "tied": tied,
        "again": tied,
        "transposed": tied.t(),
        "half": torch.randn(3).bfloat16(),
        "bools": torch.tensor([True, False]),
        "scalar": torch.tensor(3),
        "empty": torch.ones(0, 2),
    }
    write_checkpoint(tmp_path / "x", {"number": 0.1, "none": None}, tensors)
    document, got = read_checkpoint(tmp_path / "x")
    assert document == {"number": 0.1, "none": None} and got.keys() == tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(got[name], value) and got[name].dtype == value.dtype


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9),
    "groups": lambda p: torch.optim.AdamW(
        [{"params": p[:2], "lr": 0.01, "betas": (0.8, 0.9)}, {"params": p[2:]}], 0.001
    ),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.01),
    "amsgrad": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_go_on(tmp_path, name):
    path = stopped(tmp_path / "run.ckpt", optimizer=OPTIMIZERS[name])
    resumed = training(bars.pruned(bars.network()), path, optimizer=OPTIMIZERS[name])
    whole = training(
        bars.pruned(bars.network()), tmp_path / "other.ckpt", optimizer=OPTIMIZERS[name]
    )
    for mine, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_an_optimizer_whose_state_is_no_tensors_is_said(tmp_path):
    class Odd(torch.optim.SGD):
        def state_dict(self):
            return {**super().state_dict(), "thing": object()}

    with pytest.raises(CheckpointError, match="got object at optimizer/thing of Odd"):
        training(bars.network(), tmp_path / "run.ckpt", optimizer=lambda p: Odd(p, 0.1))


def test_a_pruner_of_another_schedule_is_refused(tmp_path):
    def run(end):
        model = bars.network()
        pruner = GradualPruner(model, "nm64", 0.5, CubicSchedule(0, end))
        training(model, tmp_path / "run.ckpt", pruner=pruner)

    run(3)
    with pytest.raises(CheckpointError, match=r"differs in pruner: .*end=3.* there, .*end=4"):
        run(4)
