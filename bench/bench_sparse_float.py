"""Float weights with zeros against dense ones: python bench/bench_sparse_float.py.

Layers of ResNet-50, linear layers and whole models with random weights, of which any, the smallest,
are zero. Dense is torch's float32 kernel, for images in the faster of its two layouts. All variants
of a row are timed in turn in one run, after their results were compared with float64. `peak %` is
the share of the float multiply-adds that this machine was measured to do in registers.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from harness import measure_peak, read_shapes, results_path, show, write_json
from random_models import random_model
from torch import Tensor, nn

import fastinfer
from fastinfer.compress.prune import largest_kept
from fastinfer.measure import time_interleaved
from fastinfer.testing.compare import float32_bound
from fastinfer.types.sparse_float import SparseFloatWeight
from fastinfer.types.sparsity import Unstructured

ZEROS = (0.4, 0.5, 0.6, 0.75, 0.875, 0.95)
#: Shares of zeros of whole models.
MODEL_ZEROS = (0.5, 0.75, 0.875, 0.95)
#: Rows, inputs and outputs.
LINEAR = (
    (1, 1024, 1024), (1, 4096, 4096), (16, 1024, 1024), (16, 4096, 4096), (128, 768, 768),
    (128, 768, 3072), (128, 3072, 768),
)  # fmt: skip
MODELS = ("resnet50", "mobilenet_v2", "transformer_6x384", "mlp_1024")
#: Of models; more than one row with the most threads only.
BATCHES = (1, 16)
PARTS = ("layers", "models")
LEAST_INPUTS = 64


def pruned(weight: Tensor, zeros: float) -> Tensor:
    """Return the weight with its smallest values zero."""
    return weight * largest_kept(weight.square(), Unstructured(1 - zeros))


def compared(call: Callable[[], Tensor], wanted: Tensor, bound: float) -> Callable[[], Tensor]:
    """Return the call, whose result is as near to float64's as float32 can say."""
    error = float((call().double() - wanted).abs().max())
    if not error <= bound:
        raise AssertionError(f"sparse float: error {error} > {bound}")
    return call


def linear_calls(m: int, k: int, n: int) -> tuple[dict[str, Callable[[], Tensor]], str, int]:
    """Return calls by name, the layer in words, and its dense multiply-adds."""
    g = torch.Generator().manual_seed(k * 31 + n)
    x, weight = torch.randn(m, k, generator=g), torch.randn(n, k, generator=g)
    calls: dict[str, Callable[[], Tensor]] = {"dense": partial(F.linear, x, weight)}
    for zeros in ZEROS:
        kept = pruned(weight, zeros)
        w = SparseFloatWeight.of(kept)
        arguments = (x, w.values, w.places, w.starts, None, None, [n, k], -inf, inf)
        call = partial(torch.ops.fastinfer.sparse_float_linear, *arguments)
        wanted = F.linear(x.double(), kept.double())
        calls[f"{100 * zeros:g}%"] = compared(call, wanted, float32_bound(k, x, kept))
    return calls, f"{m}x{k} -> {n}", m * k * n


def conv_calls(shape: dict[str, Any]) -> tuple[dict[str, Callable[[], Tensor]], str, int]:
    """Return calls by name, the layer in words, and its dense multiply-adds."""
    c, size, n, kernel = shape["channels"], shape["size"], shape["out_channels"], shape["kernel"]
    stride, padding = shape["stride"], kernel // 2
    g = torch.Generator().manual_seed(c * 7919 + size * 31 + n)
    x = torch.randn(1, c, size, size, generator=g)
    weight = torch.randn(n, c, kernel, kernel, generator=g)
    dense = partial(F.conv2d, stride=stride, padding=padding)
    last = [t.contiguous(memory_format=torch.channels_last) for t in (x, weight)]
    calls: dict[str, Callable[[], Tensor]] = {
        "dense": partial(dense, x, weight),
        "dense NHWC": partial(dense, *last),
    }
    for zeros in ZEROS:
        kept = pruned(weight, zeros)
        w = SparseFloatWeight.of(kept)
        geometry = ([stride] * 2, [padding] * 2, [1, 1], 1)
        arguments = (
            x, w.values, w.places, w.starts, None, None, list(weight.shape), *geometry, -inf, inf,
        )  # fmt: skip
        call = partial(torch.ops.fastinfer.sparse_float_conv2d, *arguments)
        wanted = dense(x.double(), kept.double())
        calls[f"{100 * zeros:g}%"] = compared(call, wanted, float32_bound(w.inputs, x, kept))
    products = weight.numel() * wanted.shape[2] * wanted.shape[3]
    label = f"{c}x{size} -> {n} {kernel}x{kernel}/{stride}"
    return calls, label, products


def time_layers(threads: int, seconds: float) -> list[dict[str, Any]]:
    """Return a row for each layer: dense us, times as fast, and the peak's share at 75 % zeros."""
    peak = measure_peak([threads]).get(threads, {}).get("fp32_gflops")
    makers: list[Callable[[], Any]] = [partial(linear_calls, *sizes) for sizes in LINEAR]
    for shape in read_shapes("resnet50"):
        if shape["channels"] >= LEAST_INPUTS:
            makers.append(partial(conv_calls, shape))
    rows = []
    for make in makers:
        calls, label, products = make()
        with torch.inference_mode():
            timed = time_interleaved(calls, min_time_s=seconds, threads=threads)
        dense = min(timed[name].median_ms for name in calls if name.startswith("dense"))
        row = {"layer": label, "threads": threads, "dense us": 1e3 * dense}
        row |= {name: dense / timed[name].median_ms for name in calls if name[0].isdigit()}
        if peak:
            gflops = 2e-6 * products * 0.25 / timed["75%"].median_ms
            row["75% peak %"] = 100 * gflops / peak
        rows.append(row)
    return rows


def prune_model(model: nn.Module, zeros: float) -> nn.Module:
    """Return a copy with every linear layer and convolution of enough inputs pruned."""
    model = copy.deepcopy(model)
    for module in model.modules():
        is_layer = isinstance(module, (nn.Linear, nn.Conv2d)) and getattr(module, "groups", 1) == 1
        if is_layer and module.weight.shape[1] >= LEAST_INPUTS:
            module.weight.data = pruned(module.weight.data, zeros)
    return model


def time_models(name: str, threads: list[int], seconds: float) -> list[Any]:
    """Return a row per batch and threads: ms of the faster eager layout, and times as fast.

    Models are converted for the batch and threads they are timed with: layers are chosen by time.
    """
    model, data = random_model(name, calibration=8)
    eager = {"eager": model}
    if data.dim() == 4:
        eager["eager NHWC"] = copy.deepcopy(model).to(memory_format=torch.channels_last)
    variants = {"dense": model} | {f"{100 * z:g}%": prune_model(model, z) for z in MODEL_ZEROS}
    rows = []
    for batch in BATCHES:
        x = data[:1].repeat(batch, *[1] * (data.dim() - 1))
        last = x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
        for count in threads if batch == 1 else threads[-1:]:
            torch.set_num_threads(count)
            fast = {n: fastinfer.convert(m, x, config="fp32") for n, m in variants.items()}
            every = {**eager, **fast}
            calls = {n: partial(m, last if "NHWC" in n else x) for n, m in every.items()}
            with torch.inference_mode():
                timed = time_interleaved(calls, min_time_s=seconds, threads=count)
            best = min(timed[n].median_ms for n in eager)
            row = {"model": name, "batch": batch, "threads": count, "eager ms": best}
            rows.append(row | {f"fp32 {n}": best / timed[n].median_ms for n in fast})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=0.1, help="per contender and row")
    parser.add_argument("--out", type=Path, help="default: in bench/results, when all ran")
    options = parser.parse_args()
    if options.out is None and options.only is None:
        options.out = results_path("bench_sparse_float")
    found: dict[str, list[Any]] = {}
    for part in options.only or PARTS:
        if part == "layers":
            found[part] = [r for t in options.threads for r in time_layers(t, options.seconds)]
        else:
            found[part] = [
                row
                for name in MODELS
                for row in time_models(name, options.threads, 3 * options.seconds)
            ]
        show(part, found[part])
    write_json(options.out, **found)


if __name__ == "__main__":
    main()
