"""Whole models with random weights, torch against fastinfer: python bench/bench_models.py.

Contenders run interleaved. `SQNR dB` compares with eager on the timed input: with random weights it
finds gross mistakes and says nothing about accuracy, so no layer returns to float for it.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from harness import results_path, show, write_json
from random_models import random_model
from torch import Tensor, nn

import fastinfer
from fastinfer.config import PRESETS, resolve_config
from fastinfer.demo.results import BF16, CHANNELS_LAST, EAGER
from fastinfer.demo.variants import has_bf16, input_for, torch_variants
from fastinfer.measure import Timing, fixed_threads, model_bytes, sqnr_db, time_interleaved

INDUCTOR, OURS = "inductor", "fastinfer"
MODELS = (
    "mobilenet_v2", "mobilenet_v3_large", "shufflenet_v2_x1_0", "efficientnet_b0", "resnet18",
    "resnet50", "transformer_6x384", "mlp_1024",
)  # fmt: skip


def contenders(
    model: nn.Module, calibration: Tensor, options: argparse.Namespace
) -> tuple[dict[str, Callable[[Tensor], Tensor]], float]:
    """Return what is timed, by name, and the seconds that convert took."""
    start = time.perf_counter()
    config = replace(resolve_config(options.config), min_sqnr_db=-math.inf)
    fast = fastinfer.convert(
        model, calibration[:1], config=config, calibration=list(calibration.split(4))
    )
    convert_s = time.perf_counter() - start
    found: dict[str, Callable[[Tensor], Tensor]] = {**torch_variants(model)}
    if calibration.dim() != 4:
        del found[CHANNELS_LAST]
    if options.inductor:
        found[INDUCTOR] = torch.compile(model, options={"freezing": True})
    found[OURS] = fast
    return found, convert_s


def measure(
    models: dict[str, Callable[[Tensor], Tensor]], x: Tensor, seconds: float
) -> tuple[dict[str, Timing], dict[str, float | None]]:
    """Return the time and the SQNR (None: equal, or not taken) of every contender on x.

    Where torch has no bf16 kernels it emulates them, tens of times slower than float: then bf16 is
    timed in one call at batch 1, and left out elsewhere.

    Raises:
        AssertionError: an answer is not finite where eager's is.
    """
    emulated = () if has_bf16() else (BF16,)
    chosen = {k: m for k, m in models.items() if k not in emulated or x.shape[0] == 1}
    with torch.inference_mode():
        runs = {key: partial(model, input_for(key, x)) for key, model in chosen.items()}
        answers = {key: run() for key, run in runs.items() if key not in emulated}
        errors: dict[str, float | None] = dict.fromkeys(chosen)
        for key, answer in answers.items():
            error = sqnr_db(answers[EAGER], answer.float())
            if error == -math.inf:
                raise AssertionError(f"{key}: values that are not finite where eager's are")
            errors[key] = error if math.isfinite(error) else None  # JSON has no infinity
        return time_interleaved(runs, min_time_s=seconds, warmup=1, once=emulated), errors


def bench_model(
    name: str, options: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return rows for the file, one per contender and batch, and for the table, one per batch."""
    model, calibration = random_model(name)
    models, convert_s = contenders(model, calibration, options)
    report = fastinfer.report(models[OURS])
    rows, lines = [], []
    for batch in options.batch:
        timings, errors = measure(
            models, torch.randn(batch, *calibration.shape[1:]), options.seconds
        )
        for key, timing in timings.items():
            rows.append(
                {
                    "model": name,
                    "batch": batch,
                    "variant": key,
                    **timing.to_dict(),
                    "ratio": timings[EAGER].median_ms / timing.median_ms,
                    "sqnr_db": errors[key],
                    "bytes": model_bytes(models[key]),
                }
            )
        ours = timings[OURS]
        others = {k: t.median_ms for k, t in timings.items() if k != OURS}
        int8 = len(report.layers) - len(report.fallbacks)
        lines.append(
            {
                "model": name,
                "batch": batch,
                **{f"{key} ms": others.get(key) for key in models if key != OURS},
                "fastinfer ms": ours.median_ms,
                "p20": ours.p20_ms,
                "p80": ours.p80_ms,
                "vs eager": others[EAGER] / ours.median_ms,
                "vs best": min(others.values()) / ours.median_ms,
                "SQNR dB": errors[OURS],
                "int8 layers": f"{int8} of {len(report.layers)}",
                "MB": model_bytes(models[OURS]) / 1e6,
                "convert s": convert_s,
            }
        )
    for row in rows:
        if row["variant"] == OURS:
            row["convert_s"], row["path"] = convert_s, report.path
            row["fallbacks"] = {layer.name: layer.reason for layer in report.fallbacks}
    return rows, lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=MODELS, nargs="+", metavar="MODEL", help="default: all")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0, help="per contender and batch size")
    parser.add_argument("--config", choices=PRESETS, default="auto")
    parser.add_argument("--inductor", action="store_true", help="torch.compile too, minutes each")
    parser.add_argument("--out", type=Path, help="default: in bench/results, when all models ran")
    options = parser.parse_args()
    if options.out is None and options.only is None:
        options.out = results_path("bench_models")
    rows: list[dict[str, Any]] = []
    table: list[dict[str, Any]] = []
    with fixed_threads(options.threads):
        for name in options.only or MODELS:
            start = time.perf_counter()
            found, lines = bench_model(name, options)
            print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
            rows, table = rows + found, table + lines
    keys = list(dict.fromkeys(key for line in table for key in line))
    title = f"{options.threads} threads, medians, config {options.config!r}"
    show(title, [{key: line.get(key) for key in keys} for line in table])
    if not has_bf16():
        print("bf16: this CPU has no fast bf16, so one call at batch 1 was timed\n")
    write_json(options.out, threads=options.threads, config=options.config, rows=rows)


if __name__ == "__main__":
    main()
