"""Sparse weights on the GPU against our own dense kernels, cuDNN, cuBLASLt and cuSPARSELt.

    python3 bench/bench_gpu_sparse.py --out sparse.json [--suite linear conv] [--batch 32]

Every result is first compared with the dense kernel's, which tests hold equal to the reference.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from bench_gpu import config_name, cudnn_us, forced, packed_weight, random_codes, random_weights
from gpu_timing import time_call
from harness import read_shapes, show
from torch import Tensor

from fastinfer import runtime
from fastinfer.measure import describe_machine

SUITES = ("linear", "conv")
RUNS, SWEEP_RUNS = 20, 9
#: Output pixels or rows, inputs, outputs that are worth a sparse kernel.
LINEAR = (
    (8192, 8192, 8192),
    (4096, 4096, 4096),
    (8192, 14336, 4096),
    (1024, 4096, 4096),
    (8192, 4096, 1024),
    (4096, 3072, 768),
    (4096, 768, 3072),
    (128, 4096, 4096),
)


def two_of_four(weight: Tensor) -> Tensor:
    """Return weights [n, c, ...] of which every four inputs keep two."""
    n, c, *rest = weight.shape
    scores = torch.rand(n, c // 4, 4, *rest, device=weight.device)
    kept = scores.argsort(2).argsort(2) < 2
    return weight * kept.reshape(weight.shape)


def gathered(weight: Tensor, channels: int, kept: int = 16) -> Tensor:
    """Return weights [n, c, ...] of which `channels` neighbours keep the same of every 64 inputs.

    Inputs count in the order (kh, kw, c); c is a multiple of 64.
    """
    n, c, *rest = weight.shape
    tiles = -(-n // channels)
    scores = torch.rand(tiles, c // 64, 64, *rest, device=weight.device)
    mask = scores.argsort(2).argsort(2) < kept
    return weight * mask.reshape(tiles, c, *rest).repeat_interleave(channels, 0)[:n]


def times_of(
    configs: list[dict[str, Any]], call: Callable[[], Tensor], want: Tensor
) -> dict[str, float]:
    """Return microseconds of each kernel and tile, each checked."""
    found = {}
    for config in configs:
        with forced(config):
            got = call()
            if not torch.equal(got, want):
                wrong = int((got != want).sum())
                raise AssertionError(f"{config_name(config)}: {wrong} of {got.numel()} differ")
            found[config_name(config)] = time_call(call, SWEEP_RUNS).median
    return found


def facts() -> tuple[int, int]:
    properties = torch.cuda.get_device_properties(0)
    return properties.major * 10 + properties.minor, properties.multi_processor_count


def compared(
    name: str,
    m: int,
    n: int,
    k: int,
    source: str,
    call: Callable[[Tensor], Tensor],
    pack: Callable[[Callable[[Tensor], Tensor]], Tensor],
    has_lines: bool = False,
) -> dict[str, Any]:
    """Return dense, 2:4 and gathered times of a layer, and what would be chosen for 2:4.

    pack: makes a packed weight of a function that sets weights to zero. has_lines: whether the
    kernel of whole lines can run it.
    """
    kernels = runtime.require_cuda_kernels()
    dense = kernels.choose_config(m, n, k, 1, source, *facts())
    chosen = kernels.choose_config(m, n, k, 1, source, *facts(), True)
    sweep: dict[str, float] = {}
    for channels in (0, 64, 128, 256):  # that keep the same inputs; 0: 2:4
        if channels == 0:
            configs, zeros = kernels.known_sparse_configs(), two_of_four
        else:
            if channels >= 2 * n:
                continue
            configs = [
                c for c in kernels.known_gather_configs()
                if c["block_n"] == channels and (has_lines or c["kernel"] != "patch_wgmma")
            ]  # fmt: skip
            zeros = partial(gathered, channels=channels)
        with forced(configs[0]):  # packed for it
            packed = pack(zeros)
        with forced(dense):
            want = call(packed).clone()
            if channels == 0:
                dense_us = time_call(lambda packed=packed: call(packed), RUNS).median
        sweep |= times_of(configs, lambda packed=packed: call(packed), want)
    operations = 2e-6 * m * n * k
    found = {
        "shape": name,
        "dense": config_name(dense),
        "dense us": dense_us,
        "dense TOPS": operations / dense_us,
        "chosen": config_name(chosen),
    }
    for kind, prefix in (("2:4", ("sparse",)), ("gather", ("gather", "patch"))):
        best = min((c for c in sweep if c.startswith(prefix)), key=sweep.__getitem__)
        found |= {
            f"{kind} best": best,
            f"{kind} us": sweep[best],
            f"{kind} TOPS": operations / sweep[best],
            f"{kind} vs dense": dense_us / sweep[best],
        }
    return {**found, "sweep": sweep}


def cusparselt_us(x: Tensor, weight: Tensor) -> tuple[float | None, str]:
    """Return microseconds of torch's own 2:4 product with int32 results, or why there is none."""
    try:
        a = weight.contiguous()
        b = (x & 127).view(torch.int8)
        compressed = torch._cslt_compress(a)

        def call() -> Tensor:
            return torch._cslt_sparse_mm(compressed, b.t(), out_dtype=torch.int32)

        want = torch._int_mm(b, a.t()).t()
        if not torch.equal(call(), want):
            return None, "its result is not the product"
        return time_call(call, SWEEP_RUNS).median, ""
    except RuntimeError as error:  # torch without cuSPARSELt, or a shape that it refuses
        return None, str(error).splitlines()[0][:120]


def linear(m: int, n: int, k: int) -> dict[str, Any]:
    """Return the figures of one matrix product."""
    x, weight = random_codes(m, k), random_weights(n, k)
    row = compared(
        f"{m}x{n}x{k}", m, n, k, "matrix",
        lambda packed: torch.ops.fastinfer.int8_linear(x, packed, None, n, False),
        lambda zeros: packed_weight("linear", zeros(weight)),
    )  # fmt: skip
    theirs, why = cusparselt_us(x, two_of_four(weight))
    signed, transposed = x.view(torch.int8), weight.t()
    row["_int_mm us"] = time_call(lambda: torch._int_mm(signed, transposed), SWEEP_RUNS).median
    row["cuSPARSELt us"], row["cuSPARSELt"] = theirs, why
    return row


def conv(shape: dict[str, Any], batch: int) -> dict[str, Any]:
    """Return the figures of one convolution; its input's zero point is 0."""
    c, size, out, kernel = shape["channels"], shape["size"], shape["out_channels"], shape["kernel"]
    stride, padding = [shape["stride"]] * 2, [shape["padding"]] * 2
    name = f"{batch}x{c}x{size} -> {out} {kernel}x{kernel}/{shape['stride']}"
    x = random_codes(batch, c, size, size).contiguous(memory_format=torch.channels_last)
    weight = random_weights(out, c, kernel, kernel)
    rest = (None, out, [kernel] * 2, stride, padding, [1, 1], 1, False)
    m = batch * ((size + 2 * padding[0] - kernel) // stride[0] + 1) ** 2
    source = "matrix" if kernel == stride[0] == 1 else "pixels"
    row = compared(
        name, m, out, c * kernel**2, source,
        lambda packed: torch.ops.fastinfer.int8_conv2d(x, packed, *rest),
        lambda zeros: packed_weight("conv2d", zeros(weight), 0),
        kernel > 1 and stride[0] == 1,
    )  # fmt: skip
    half_us = cudnn_us(x, weight, torch.float16, stride, padding)
    return {
        **row,
        "fp16 us": half_us,
        "2:4 vs fp16": half_us / row["2:4 us"],
        "gather vs fp16": half_us / row["gather us"],
        "times": shape["count"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", choices=SUITES, nargs="+", default=SUITES)
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 128], help="of convolutions")
    parser.add_argument("--out", type=Path, required=True, help="JSON")
    options = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    found: dict[str, Any] = {"machine": describe_machine(cuda=torch.version.cuda)}
    failed: list[str] = []
    convs = [
        row for row in read_shapes("resnet50")
        if row["channels"] % 64 == 0 and (row["kernel"] == 3 or row["stride"] == 1)
    ]  # fmt: skip
    work = {
        "linear": [lambda s=s: linear(*s) for s in LINEAR],
        "conv": [lambda r=r, b=b: conv(r, b) for b, r in product(options.batch, convs)],
    }
    kernels = runtime.require_cuda_kernels()
    kernels.set_sparse("always")
    for suite in options.suite:
        found[suite] = []
        for row in work[suite]:
            try:
                found[suite].append(row())
            except (AssertionError, RuntimeError) as error:  # the others are worth their time
                failed.append(f"{suite}: {error}")
        shown = [{k: v for k, v in r.items() if k != "sweep"} for r in found[suite]]
        show(f"sparse {suite}", shown)
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if failed:
        raise SystemExit("\n".join(failed))


if __name__ == "__main__":
    main()
