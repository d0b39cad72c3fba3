"""int8 weights with zeros against dense ones: python bench/bench_sparse.py.

Layers of ResNet-50 and whole models, random weights, pruned by magnitude to each pattern; all
variants of a row are timed in turn in one run. A layer's result is checked `==` the reference
first. `form` says how a weight was packed: at few zeros that is the dense form, and the ratio 1.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from bench_ops import checked
from harness import read_shapes, results_path, show, write_json
from random_models import random_model
from torch import Tensor, nn

import fastinfer
from fastinfer.compress.prune import largest_kept
from fastinfer.measure import time_interleaved
from fastinfer.types.packed import FORMS, read_header
from fastinfer.types.sparsity import NM, Pattern, Unstructured

PATTERNS: dict[str, Pattern] = {
    "nm64x2 50%": NM(32, share=2),
    "nm64x2 75%": NM(16, share=2),
    "nm64x2 87.5%": NM(8, share=2),
    "nm64 50%": NM(32),
    "nm64 75%": NM(16),
    "nm64 87.5%": NM(8),
    "unstructured 75%": Unstructured(0.25),
    "unstructured 90%": Unstructured(0.1),
}
SHARES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.32, 0.36, 0.4, 0.5, 0.6, 0.7)
#: Multiplied as they are, multiplied with a stride, and by Winograd's algorithm where dense.
BREAK_EVEN_LAYERS = ("1024x14 -> 256 1x1/1", "256x28 -> 256 3x3/2", "256x14 -> 256 3x3/1")
MODELS = ("resnet50", "mobilenet_v2")
#: Inputs and outputs of the linear layer that is read from memory, and how many of them there are.
GEMV, COPIES = 4096, 40
PARTS = ("layers", "break-even", "gemv", "models")
#: Inputs of a layer below which it stays dense: half a step of 64 has few zeros to leave out.
LEAST_INPUTS = 64


def pruned(weight: Tensor, pattern: Pattern) -> Tensor:
    """Return the weight with zeros where the pattern leaves it out."""
    return weight * largest_kept(weight.float().square(), pattern).to(weight.dtype)


def layer_call(weight: Tensor, x: Tensor, stride: int) -> tuple[Any, str]:
    """Return a call of int8_conv2d that equals its reference, and the form of its weight."""
    n, kernel = weight.shape[0], weight.shape[2]
    packed = torch.ops.fastinfer.int8_prepack(
        "conv2d", weight, torch.zeros(n, dtype=torch.int32), torch.full((n,), 1e-4), None, None,
        None, 1, 0, 128, 0, 255, -float("inf"), float("inf"), False, stride > 1,
    )  # fmt: skip
    pairs = ([kernel] * 2, [stride] * 2, [kernel // 2] * 2, [1, 1])
    arguments = (x, packed, None, n, *pairs, 1, False)
    header = read_header(packed)
    return checked("int8_conv2d", arguments)[0], f"{FORMS[header.form]} {header.nr}"


def layer_name(shape: dict[str, Any]) -> str:
    """Return a convolution's channels, size, outputs, kernel and stride, as tables have them."""
    return "{channels}x{size} -> {out_channels} {kernel}x{kernel}/{stride}".format(**shape)


def random_layer(row: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return int8 weights without a zero and a batch of one."""
    c, size, out, kernel = row["channels"], row["size"], row["out_channels"], row["kernel"]
    generator = torch.Generator().manual_seed(c * 7919 + size * 31 + out)
    weight = (torch.randn(out, c, kernel, kernel, generator=generator) * 32).round()
    weight = torch.where(weight == 0, 1, weight).clamp(-127, 127).to(torch.int8)
    x = torch.randint(0, 256, (1, c, size, size), generator=generator, dtype=torch.uint8)
    return weight, x.contiguous(memory_format=torch.channels_last)


def time_layers(threads: int, seconds: float) -> list[dict[str, Any]]:
    """Return a row for each layer of ResNet-50 but the first: dense us, and times as fast."""
    rows = []
    for shape in read_shapes("resnet50"):
        if shape["channels"] < LEAST_INPUTS:
            continue
        weight, x = random_layer(shape)
        calls = {"dense": layer_call(weight, x, shape["stride"])[0]}
        for name, pattern in PATTERNS.items():
            calls[name] = layer_call(pruned(weight, pattern), x, shape["stride"])[0]
        with torch.inference_mode():
            timed = time_interleaved(calls, min_time_s=seconds, threads=threads)
        dense = timed["dense"].median_ms
        row = {
            "layer": layer_name(shape),
            "threads": threads,
            "dense us": 1e3 * dense,
        }
        rows.append(row | {name: dense / timed[name].median_ms for name in PATTERNS})
    return rows


def break_even(threads: int, seconds: float) -> list[dict[str, Any]]:
    """Return times as fast as dense at small shares of zeros, and the form that was chosen."""
    rows = []
    for shape in read_shapes("resnet50"):
        if layer_name(shape) not in BREAK_EVEN_LAYERS:
            continue
        weight, x = random_layer(shape)
        dense, _ = layer_call(weight, x, shape["stride"])
        for share in (2, 1):
            for zeros in SHARES:
                pattern = NM(round(64 * (1 - zeros)), share=share)
                sparse, form = layer_call(pruned(weight, pattern), x, shape["stride"])
                with torch.inference_mode():
                    timed = time_interleaved(
                        {"dense": dense, "sparse": sparse}, min_time_s=seconds, threads=threads
                    )
                ratio = timed["dense"].median_ms / timed["sparse"].median_ms
                pattern_name = "nm64x2" if share == 2 else "nm64"
                rows.append(
                    {"layer": layer_name(shape), "pattern": pattern_name,
                     "zeros %": 100 * (1 - pattern.density), "form": form, "vs dense": ratio}
                )  # fmt: skip
    return rows


def time_gemv(threads: int, rounds: int = 8) -> list[dict[str, Any]]:
    """Return a row per pattern of one token through a linear layer, from memory: us, MB, ratio.

    COPIES of each weight pass in turn, more than a cache holds.
    """
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(GEMV, GEMV, generator=generator) * 32).round()
    weight = torch.where(weight == 0, 1, weight).clamp(-127, 127).to(torch.int8)
    x = torch.randint(0, 256, (1, GEMV), generator=generator, dtype=torch.uint8)
    packed = {}
    for name, pattern in {"dense": None, **PATTERNS}.items():
        kept = weight if pattern is None else pruned(weight, pattern)
        first = torch.ops.fastinfer.int8_prepack(
            "linear", kept, torch.zeros(GEMV, dtype=torch.int32), torch.full((GEMV,), 1e-4), None,
            None, None, 1, 0, 128, 0, 255, -float("inf"), float("inf"), False,
        )  # fmt: skip
        checked("int8_linear", (x, first, None, GEMV, False))
        packed[name] = [first, *(first.clone() for _ in range(COPIES - 1))]
    seconds: dict[str, list[float]] = {name: [] for name in packed}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for _ in range(rounds):
            for name, copies in packed.items():
                for one in copies:
                    start = time.perf_counter()
                    torch.ops.fastinfer.int8_linear(x, one, None, GEMV, False)
                    seconds[name].append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return [
        {"pattern": name, "threads": threads, "us": 1e6 * median,
         "MB": packed[name][0].numel() / 1e6, "vs dense": medians["dense"] / median}
        for name, median in medians.items()
    ]  # fmt: skip


def prune_model(model: nn.Module, pattern: Pattern) -> nn.Module:
    """Return a copy with every linear layer and dense convolution of enough inputs pruned."""
    model = copy.deepcopy(model)
    for module in model.modules():
        dense = isinstance(module, nn.Linear) or (
            isinstance(module, nn.Conv2d) and module.groups == 1
        )
        if dense and module.weight.shape[1] >= LEAST_INPUTS:
            module.weight.data = pruned(module.weight.data, pattern)
    return model


def time_models(name: str, batches: list[int], threads: list[int], seconds: float) -> list[Any]:
    """Return a row per batch and number of threads: dense ms, and times as fast."""
    model, calibration = random_model(name, calibration=8)
    config = fastinfer.Config("int8", min_sqnr_db=-float("inf"))
    variants = {"dense": model} | {n: prune_model(model, p) for n, p in PATTERNS.items()}
    fast = {
        n: fastinfer.convert(m, calibration[:1], config=config, calibration=[calibration])
        for n, m in variants.items()
    }
    rows = []
    for batch in batches:
        x = calibration[:1].repeat(batch, 1, 1, 1)
        for count in threads:
            calls = {n: (lambda m=m, x=x: m(x)) for n, m in fast.items()}
            with torch.inference_mode():
                timed = time_interleaved(calls, min_time_s=seconds, threads=count)
            dense = timed["dense"].median_ms
            row = {"model": name, "batch": batch, "threads": count, "dense ms": dense}
            rows.append(row | {n: dense / timed[n].median_ms for n in PATTERNS})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=0.1, help="per contender and row")
    parser.add_argument("--out", type=Path, help="default: in bench/results, when all ran")
    options = parser.parse_args()
    if options.out is None and options.only is None:
        options.out = results_path("bench_sparse")
    wanted = options.only or PARTS
    found: dict[str, list[Any]] = {}
    if "layers" in wanted:
        found["layers"] = [r for t in options.threads for r in time_layers(t, options.seconds)]
    if "break-even" in wanted:
        found["break-even"] = break_even(1, options.seconds)
    if "gemv" in wanted:
        found["gemv"] = [r for t in options.threads for r in time_gemv(t)]
    if "models" in wanted:
        found["models"] = [
            row
            for name in MODELS
            for row in time_models(name, [1, 16], options.threads, 5 * options.seconds)
        ]
    for title, rows in found.items():
        show(title, rows)
    write_json(options.out, **found)


if __name__ == "__main__":
    main()
