"""How well the costs of sparse CUDA kernels choose, replayed over a sweep; and other constants.

    python3 bench/fit_gpu_sparse.py [--sweep bench/results/gpu_sparse_h100.json] [--fit 20]

A question is a shape and a kind of weight: 2:4, or so many channels that keep the same inputs. Its
candidates are the dense kernel's time and every tile of the sparse kernels, as bench_gpu_sparse.py
measured them. Printed are predicted against measured times, and what is lost by the choice against
the fastest candidate. Needs fastinfer._C_cuda, and no GPU. --fit looks for constants that choose
better, which then belong into csrc/cuda/gemm_costs.h.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import RESULTS, show

from fastinfer import runtime

Constants = Mapping[str, float]
#: Kernels of channels that keep the same inputs.
SHARED = ("gather_wgmma", "patch_wgmma")
#: csrc/cuda/gemm.h: kSparseMargin.
MARGIN = 1.02
#: Microseconds that every call has beside its cycles, and cycles of a microsecond: least squares
#: over the dense wgmma tiles of gpu_products_h100.json, which leave 15 % root mean square.
OVERHEAD_US, CYCLES_PER_US = 6.75, 1606.0
#: Its times jump between 14 and 385 us from tile to tile; something else ran.
DISTURBED = ("32x256x28 -> 256 3x3/2",)
#: What predictions' errors weigh against what choices lose; within so much two costs are alike.
MINDED, SHARPNESS = 0.3, 0.025
#: What the sweep cannot tell from more.
LIMITS = {"multiply_adds": 14000.0, "windows": 2.0, "far": 1.6, "meeting": 1500.0}


@dataclass(frozen=True)
class Candidate:
    """A sparse kernel and tile, what it took, and the arguments of `cycles` for it."""

    name: str
    us: float
    arguments: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Question:
    """A shape and a kind of weight; channels: that keep the same inputs, 0 of 2:4 weights."""

    shape: str
    channels: int
    m: int
    n: int
    k: int
    source: str
    patches: tuple[int, int]
    dense_us: float
    dense_cycles: float
    candidates: tuple[Candidate, ...]

    @property
    def best_us(self) -> float:
        """The fastest of all."""
        return min(self.dense_us, *(c.us for c in self.candidates))


def tile_of(name: str) -> dict[str, Any]:
    """Return the arguments of `cycles` that a sweep's name tells."""
    kernel, tile, cluster = name.split()
    block_m, block_n = map(int, tile.split("x"))
    return {"kernel": kernel, "block_m": block_m, "block_n": block_n, "cluster": int(cluster[1:])}


def name_of(config: Mapping[str, Any]) -> str:
    """Return the sweep's name of a config."""
    return "{kernel} {block_m}x{block_n} c{cluster}".format(**config)


def product_of(shape: str) -> tuple[int, int, int, str, tuple[int, int]]:
    """Return m, n, k, how x is read, and the patches of a sweep's shape."""
    found = list(map(int, re.findall(r"\d+", shape)))
    if "->" not in shape:
        m, n, k = found
        return m, n, k, "matrix", (0, 0)
    batch, channels, size, n, kernel, _, stride = found
    source = "matrix" if kernel == stride == 1 else "pixels"
    patches = runtime.require_cuda_kernels().patches(batch, channels, size, kernel, stride)
    return batch * (size // stride) ** 2, n, kernel**2 * channels, source, patches


def questions(sweep: Path) -> list[Question]:
    """Return what a sweep has answers to."""
    kernels = runtime.require_cuda_kernels()
    data = json.loads(sweep.read_text(encoding="utf-8"))
    found = []
    for row in (*data["linear"], *data["conv"]):
        if row["shape"] in DISTURBED:
            continue
        m, n, k, source, patches = product_of(row["shape"])
        size = {"m": m, "n": n, "k": k, "is_windows": source == "pixels"}
        dense = min(kernels.cycles(*config.values(), **size) for config in kernels.known_configs())
        size |= {"patch_tiles": patches[0], "patch_bytes": patches[1]}
        tiles = {name: tile_of(name) for name in row["sweep"]}
        for channels in (0, 64, 128, 256):
            fitting = tuple(
                Candidate(name, row["sweep"][name], named | size)
                for name, named in tiles.items()
                if (named["kernel"] == "sparse_wgmma" if channels == 0 else
                    named["kernel"] in SHARED and named["block_n"] == channels)
            )  # fmt: skip
            if fitting:
                found.append(Question(row["shape"], channels, m, n, k, source, patches,
                                      row["dense us"], dense, fitting))  # fmt: skip
    return found


def choice(question: Question, constants: Constants) -> tuple[str, float]:
    """Return the name of what would be chosen, "dense" or a tile, and what it took."""
    kernels = runtime.require_cuda_kernels()
    costs = [kernels.cycles(**c.arguments, constants=constants) for c in question.candidates]
    at = min(range(len(costs)), key=costs.__getitem__)
    if costs[at] >= question.dense_cycles / MARGIN:
        return "dense", question.dense_us
    return question.candidates[at].name, question.candidates[at].us


def expected_loss(question: Question, constants: Constants) -> tuple[float, list[float]]:
    """Return a smooth loss of the choice, and how far off predictions are, as logarithms."""
    kernels = runtime.require_cuda_kernels()
    costs = [kernels.cycles(**c.arguments, constants=constants) for c in question.candidates]
    us = [*(c.us for c in question.candidates), question.dense_us]
    least = min(*costs, question.dense_cycles / MARGIN)
    weights = [
        (least / cost) ** (1 / SHARPNESS) for cost in (*costs, question.dense_cycles / MARGIN)
    ]
    mean = sum(w * t for w, t in zip(weights, us, strict=True)) / sum(weights)
    errors = [
        math.log((OVERHEAD_US + cost / CYCLES_PER_US) / c.us)
        for cost, c in zip(costs, question.candidates, strict=True)
    ]
    return mean / question.best_us - 1, errors


def objective(asked: Sequence[Question], constants: Constants) -> float:
    """Return what the search makes small."""
    parts = [expected_loss(question, constants) for question in asked]
    errors = [error for part in parts for error in part[1]]
    return statistics.fmean(part[0] for part in parts) + MINDED * statistics.fmean(
        min(e * e, 0.3 * abs(e)) for e in errors
    )


def fitted(asked: Sequence[Question], start: Constants, seconds: float) -> dict[str, float]:
    """Return constants found by changing some at random, again and again."""
    chance = random.Random(0)
    best = dict(start)
    least, step = objective(asked, best), 0.2
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        other = {
            name: value * math.exp(step * chance.gauss(0, 1)) if chance.random() < 0.3 else value
            for name, value in best.items()
        }
        if any(
            value > LIMITS.get(name.partition("_")[2], math.inf) for name, value in other.items()
        ):
            continue
        if any(value < 1 for name, value in other.items() if name.endswith(("windows", "far"))):
            continue
        found = objective(asked, other)
        if found < least:
            best, least, step = other, found, min(0.4, step * 1.3)
        else:
            step = step * 0.985 if step > 0.01 else 0.2
    return best


def losses(asked: Sequence[Question], constants: Constants) -> list[float]:
    """Return each choice's time over the fastest candidate's."""
    return [choice(question, constants)[1] / question.best_us for question in asked]


def choices_table(asked: Sequence[Question], constants: Constants) -> list[dict[str, Any]]:
    """Return a line for each kind of weight."""
    lines = []
    for kind, of in (("2:4", [q for q in asked if not q.channels]),
                     ("gather", [q for q in asked if q.channels])):  # fmt: skip
        lost = losses(of, constants)
        lines.append({
            "weights": kind,
            "questions": len(of),
            "fastest": sum(x < 1.0001 for x in lost) / len(of),
            **{f"within {p} %": sum(x <= 1 + p / 100 for x in lost) / len(of) for p in (2, 5, 10)},
            "lost on average %": 100 * (statistics.fmean(lost) - 1),
            "at most %": 100 * (max(lost) - 1),
            "lost if always dense %": 100 * (
                statistics.fmean(q.dense_us / q.best_us for q in of) - 1
            ),
        })  # fmt: skip
    return lines


def predictions_table(asked: Sequence[Question], constants: Constants) -> list[dict[str, Any]]:
    """Return a line for each kernel: how predicted times compare with measured ones."""
    errors: dict[str, list[float]] = {}
    for question in asked:
        found = expected_loss(question, constants)[1]
        for candidate, error in zip(question.candidates, found, strict=True):
            errors.setdefault(candidate.name.split()[0], []).append(error)
    return [
        {
            "kernel": kernel,
            "times": len(found),
            "predicted / measured, median": math.exp(statistics.median(found)),
            "off, root mean square": math.sqrt(statistics.fmean(e * e for e in found)),
        }
        for kernel, found in errors.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweep", type=Path, default=RESULTS / "gpu_sparse_h100.json")
    parser.add_argument("--fit", type=float, default=0, metavar="SECONDS")
    options = parser.parse_args()
    asked = questions(options.sweep)
    constants = runtime.require_cuda_kernels().sparse_costs()
    if options.fit:
        show("before", choices_table(asked, constants))
        constants = fitted(asked, constants, options.fit)
        print({name: float(f"{value:.3g}") for name, value in constants.items()})
    show("predicted against measured", predictions_table(asked, constants))
    show("choices", choices_table(asked, constants))
    worst = sorted(asked, key=lambda q: q.best_us / choice(q, constants)[1])[:10]
    show("worst choices", [
        {"shape": q.shape, "channels": q.channels, "chosen": choice(q, constants)[0],
         "us": choice(q, constants)[1], "fastest us": q.best_us, "dense us": q.dense_us}
        for q in worst
    ])  # fmt: skip


if __name__ == "__main__":
    main()
