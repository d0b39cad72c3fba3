"""Fewer channels against the dense model: python bench/bench_channels.py.

ResNet-50 with half of the channels inside its bottlenecks, random weights; and the ResNet of
bench/tasks that is trained on digits, with a fifth of its parameters, on digits that
training did not see. Variants are timed in turn in one run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from harness import results_path, show, write_json
from random_models import random_model
from tasks.digits import augmented, digits_task
from tasks.task import Task
from torch import Tensor, nn

import fastinfer
from fastinfer.compress.prune.channels import channel_report, prune_channels

#: Share of the parameters of the digits network that go, and the most of a group's channels.
SHARE, MOST = 0.8, 0.8


def times_as_fast(
    first: Callable[[], Any], second: Callable[[], Any], seconds: float
) -> dict[str, float]:
    """Return how many times as fast second is: the median of ratios of neighbouring calls."""
    with torch.inference_mode():
        for call in (first, second) * 3:
            call()
        ratios, times = [], ([], [])
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(ratios) < 20:
            marks = [time.perf_counter()]
            for call in (first, second):
                call()
                marks.append(time.perf_counter())
            taken = marks[1] - marks[0], marks[2] - marks[1]
            ratios.append(taken[0] / taken[1])
            for series, one in zip(times, taken, strict=True):
                series.append(one * 1e3)
    return {
        "ratio": statistics.median(ratios),
        "first_ms": statistics.median(times[0]),
        "second_ms": statistics.median(times[1]),
        "runs": len(ratios),
    }


def int8(model: nn.Module, x: Tensor, calibration: list[Any] | None = None) -> nn.Module:
    """Return the model in int8, whether or not that is faster here."""
    config = fastinfer.Config(precision="int8")
    return fastinfer.convert(model, x, config=config, calibration=calibration)


def resnet50(seconds: float) -> dict[str, Any]:
    """Return the row of ResNet-50 with half of the channels inside its bottlenecks."""
    model, inputs = random_model("resnet50")
    x = inputs[:1]
    pruned = prune_channels(
        model, x, sparsity=0.5, allocation="uniform", scope="mid", importance="magnitude"
    )
    fast, fast_pruned = int8(model, x), int8(pruned, x)
    return {
        "model": "resnet50, mid channels halved",
        **_shares(pruned),
        "int8": times_as_fast(lambda: fast(x), lambda: fast_pruned(x), seconds),
    }


class _Augmented:
    """Training images, a little different in each epoch."""

    def __init__(self, task: Task) -> None:
        self.batches = task.distillation()

    def __iter__(self) -> Iterator[Tensor]:
        return (augmented(batch) for batch in self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def digits(seconds: float, share: float, epochs: int) -> dict[str, Any]:
    """Return the row of the digits network."""
    task = digits_task()
    model = task.build()
    x, calibration = task.example_inputs(), task.calibration()
    start = time.perf_counter()
    pruned = prune_channels(
        model, x, sparsity=share, calibration=calibration, round_to=64, max_sparsity=MOST
    )
    accuracy = {"float": _accuracy(task, model), "pruned": _accuracy(task, pruned)}
    pruning_s = time.perf_counter() - start
    if epochs:
        torch.manual_seed(0)
        pruned = fastinfer.distill(pruned, model, _Augmented(task), epochs=epochs)
        accuracy["distilled"] = _accuracy(task, pruned)
    fast, fast_pruned = int8(model, x, calibration), int8(pruned, x, calibration)
    accuracy["int8"] = _accuracy(task, fast)
    accuracy["pruned int8"] = _accuracy(task, fast_pruned)
    print(channel_report(pruned))
    return {
        "model": f"digits ResNet, distilled for {epochs} epochs",
        **_shares(pruned),
        "accuracy": accuracy,
        "pruning_s": pruning_s,
        "float": times_as_fast(lambda: model(x), lambda: pruned(x), seconds),
        "int8": times_as_fast(lambda: fast(x), lambda: fast_pruned(x), seconds),
        "float to int8": times_as_fast(lambda: model(x), lambda: fast_pruned(x), seconds),
    }


def _accuracy(task: Task, model: nn.Module) -> float:
    return task.evaluate(model)["accuracy"].value


def _shares(pruned: nn.Module) -> dict[str, float]:
    report = channel_report(pruned)
    (before, after), (macs, macs_after) = report.parameters, report.multiplications
    return {"parameters": after / before, "multiplications": macs_after / macs}


def _line(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the table for people."""
    accuracy = row.get("accuracy", {})
    return {
        "parameters": f"{row['parameters']:.1%}",
        "multiplications": f"{row['multiplications']:.1%}",
        **{
            name: f"{row[name]['ratio']:.2f}x" if name in row else "-"
            for name in ("float", "int8", "float to int8")
        },
        **{f"accuracy, {name}": f"{value:.2%}" for name, value in accuracy.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="of each pair of variants")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--share", type=float, default=SHARE, help="of the digits' parameters")
    parser.add_argument("--epochs", type=int, default=0, help="of distillation")
    parser.add_argument("--only", choices=("resnet50", "digits"))
    parser.add_argument("--out", type=Path, help="default: in bench/results, when all ran")
    options = parser.parse_args()
    if options.out is None and options.only is None:
        options.out = results_path("bench_channels")
    torch.set_num_threads(options.threads)
    found: dict[str, Any] = {"threads": options.threads}
    if options.only != "digits":
        found["resnet50"] = resnet50(options.seconds)
    if options.only != "resnet50":
        found["digits"] = digits(options.seconds, options.share, options.epochs)
    for name in found.keys() & {"resnet50", "digits"}:
        lines = [{"of": key, "is": value} for key, value in _line(found[name]).items()]
        show(found[name]["model"], lines)
    write_json(options.out, **found)


if __name__ == "__main__":
    main()
