"""The Triton kernels against torch.compile and eager torch in the same run; results checked first.

Every call of every contender is captured in a CUDA graph once, and replays are timed with L2
flushed by reading (gpu_timing says why): kernels count, Python launchers do not. torch.compile is
in its default mode, which makes no graphs itself, and has compiled before capture. A contender that
cannot be captured has no time, and the reason is under "not captured".

What is read and written once counts as moved. It is compared to a large copy's bandwidth, and in
time to a copy of as many bytes, replayed likewise: the floor of a call so short that starting it
and the first bytes' way count.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from gpu_timing import READ, capture, copy_bandwidth, copy_us, other_us, time_call
from harness import show
from torch import Tensor
from triton_products import fp8_rows, int8_rows, random_half

from fastinfer.measure import describe_machine
from fastinfer.testing.compare import sixteen_bit_bound
from fastinfer.testing.kernels_package import load_kernels

load_kernels()
from fastinfer.kernels import (  # noqa: E402
    bias_act_residual as bias_module,
)
from fastinfer.kernels import gated as gated_module  # noqa: E402
from fastinfer.kernels import layer_norm as layer_norm_module  # noqa: E402
from fastinfer.kernels import quantize_rows as quantize_module  # noqa: E402
from fastinfer.kernels import rms_norm as rms_norm_module  # noqa: E402
from fastinfer.kernels import rotary as rotary_module  # noqa: E402
from fastinfer.kernels import softmax as softmax_module  # noqa: E402
from fastinfer.kernels import weight_only_linear as weight_only_module  # noqa: E402
from fastinfer.kernels.codes import Codes, quantized_ref  # noqa: E402
from fastinfer.kernels.int4_linear import (  # noqa: E402
    dequantize_int4,
    int4_linear,
    int4_linear_ref,
    quantize_int4,
)

SUITES = ("rows", "weight_only", "int8_linear", "fp8_linear")
#: A language model's rows, and those of a ViT of 32 images.
LONG, SHORT = (4096, 4096), (32 * 197, 768)


@dataclass(frozen=True)
class Row:
    """One call: ours, torch's own that gives the same, the float32 truth, and how ours is judged.

    inputs: what is read. codes: the codes that both answer with, judged in steps; else floats.
    """

    name: str
    shape: str
    ours: Callable[[], Any]
    own: Callable[..., Any]
    inputs: tuple[Tensor, ...]
    truth: Callable[[], Tensor]
    codes: Codes | None = None


def parts(value: Any) -> list[Tensor]:
    """Return the tensors of a result."""
    return [value] if isinstance(value, Tensor) else [t for t in value if t is not None]


def row_calls() -> Iterator[Row]:
    """Yield the row kernels, in floats and in codes where a layer would ask for them."""
    for m, n in (LONG, SHORT):
        shape, x, w, b = f"{m}x{n}", random_half(m, n), random_half(n), random_half(n)
        for codes in (Codes(), Codes(signed=True)):
            yield quantize_call(shape, x, codes)
        yield from norm_calls(shape, x, w, b)
    yield from gated_calls()
    x, b, r = random_half(32 * 197, 3072), random_half(3072), random_half(32 * 197, 3072)
    yield Row(
        "bias_gelu_residual", f"{x.shape[0]}x3072",
        lambda: bias_module.bias_act_residual(x, b, r, "gelu"),
        lambda x, b, r: F.gelu(x + b + r), (x, b, r),
        lambda: bias_module.bias_act_residual_ref(x.float(), b, r, "gelu"),
    )  # fmt: skip
    for m, n in ((32 * 12 * 197, 197), (49152, 1024)):
        y = random_half(m, n)
        yield Row(
            "softmax", f"{m}x{n}", lambda y=y: softmax_module.softmax(y),
            lambda y: torch.softmax(y, -1), (y,), lambda y=y: torch.softmax(y.float(), -1),
        )  # fmt: skip
    q, angle = random_half(4096, 32, 128), torch.randn(4096, 64, device="cuda")
    cos, sin = angle.cos().half(), angle.sin().half()
    yield Row(
        "rotary", "4096x32x128", lambda: rotary_module.rotary(q, cos, sin),
        rotary_own, (q, cos, sin), lambda: rotary_module.rotary_ref(q.float(), cos, sin),
    )  # fmt: skip


def rotary_own(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return what models write: float16 throughout."""
    front, back = x.chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat((front * cos - back * sin, back * cos + front * sin), -1)


def quantize_call(shape: str, x: Tensor, codes: Codes) -> Row:
    name = f"quantize_rows {'int8' if codes.signed else 'uint8'}"
    return Row(
        name, shape, lambda: quantize_module.quantize_rows(x, codes),
        lambda x: quantized_ref(x.float(), codes), (x,), x.float, codes,
    )  # fmt: skip


def norm_calls(shape: str, x: Tensor, w: Tensor, b: Tensor) -> Iterator[Row]:
    n = x.shape[-1]
    for codes in (None, Codes(signed=True)):
        suffix = "" if codes is None else " int8"

        def finish(y: Tensor, codes: Codes | None = codes) -> Any:
            return y if codes is None else quantized_ref(y.float(), codes)

        yield Row(
            f"layer_norm{suffix}", shape,
            lambda codes=codes: layer_norm_module.layer_norm(x, w, b, 1e-5, codes),
            lambda x, w, b, finish=finish: finish(F.layer_norm(x, (n,), w, b, 1e-5)), (x, w, b),
            lambda: layer_norm_module.layer_norm_ref(x.float(), w, b, 1e-5), codes,
        )  # fmt: skip
        yield Row(
            f"rms_norm{suffix}", shape,
            lambda codes=codes: rms_norm_module.rms_norm(x, w, 1e-6, codes),
            lambda x, w, finish=finish: finish(F.rms_norm(x, (n,), w, 1e-6)), (x, w),
            lambda: rms_norm_module.rms_norm_ref(x.float(), w, 1e-6), codes,
        )  # fmt: skip


def gated_calls() -> Iterator[Row]:
    gate, up = random_half(4096, 11008), random_half(4096, 11008)
    for codes in (None, Codes(signed=True)):

        def own(gate: Tensor, up: Tensor, codes: Codes | None = codes) -> Any:
            y = F.silu(gate) * up
            return y if codes is None else quantized_ref(y.float(), codes)

        yield Row(
            "swiglu" + ("" if codes is None else " int8"), "4096x11008",
            lambda codes=codes: gated_module.gated(gate, up, "silu", codes), own, (gate, up),
            lambda: gated_module.gated_ref(gate.float(), up.float()), codes,
        )  # fmt: skip
    gate, up = random_half(32 * 197, 3072), random_half(32 * 197, 3072)
    yield Row(
        "geglu", f"{32 * 197}x3072", lambda: gated_module.gated(gate, up, "gelu_tanh"),
        lambda gate, up: F.gelu(gate, approximate="tanh") * up, (gate, up),
        lambda: gated_module.gated_ref(gate.float(), up.float(), "gelu_tanh"),
    )  # fmt: skip


def require_near(row: Row, got: Any) -> None:
    """Raise unless a result is within twice torch's own error, or codes within one step."""
    truth = row.truth()
    if row.codes is None:
        bound = sixteen_bit_bound(truth, row.own(*row.inputs))
        error = float((got.float() - truth).abs().max())
    else:
        bound, want = 1.0, quantized_ref(truth, row.codes).codes
        error = float((got.codes.int() - want.int()).abs().max())
    if not error <= bound:
        raise AssertionError(f"{row.name} {row.shape}: off by {error}, bound {bound}")


def compiled(row: Row) -> Callable[[], Any]:
    """Return torch.compile's call, for these shapes only."""
    torch._dynamo.reset()  # closures of one line of code would count as recompilations
    call = torch.compile(row.own, fullgraph=True, dynamic=False)
    return lambda: call(*row.inputs)


def all_rows() -> Iterator[Row]:
    """Yield every row that torch.compile compiles."""
    yield from row_calls()
    yield from weight_only_calls()


def compile_part(arguments: tuple[int, int]) -> None:
    """Compile every `count`-th row's contenders, into the caches that lie on disk."""
    index, count = arguments
    for i, row in enumerate(all_rows()):
        if i % count == index:
            try:
                row.ours()
                compiled(row)()
            except Exception as error:  # met again where it is measured
                print(f"{row.name} {row.shape}: {str(error)[:300]}", flush=True)


def compile_ahead(processes: int) -> float:
    """Compile all rows in so many processes; return the seconds it took."""
    began = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.map(compile_part, [(i, processes) for i in range(processes)], chunksize=1)
    return time.monotonic() - began


def checked_replay(call: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """Return a call's replay and its result; raise unless the replay gives what the call does."""
    want = call()
    replay, got = capture(call)
    replay()
    for new, old in zip(parts(got), parts(want), strict=True):
        if not torch.equal(new, old):
            raise AssertionError("a graph's replay and the call differ")
    return replay, want


def measure(row: Row, copy_gbs: float) -> dict[str, Any]:
    """Return a call's figures."""
    replay, got = checked_replay(row.ours)
    require_near(row, got)
    timing = time_call(replay, flush=READ)
    reasons: dict[str, str] = {}
    compile_us = other_us("torch.compile", compiled(row), reasons)
    eager_us = other_us("eager", lambda: row.own(*row.inputs), reasons)
    moved = sum(t.numel() * t.element_size() for t in (*row.inputs, *parts(got)))
    gbs, floor_us = 1e-3 * moved / timing.median, copy_us(moved, READ)
    return {
        "op": row.name,
        "shape": row.shape,
        "us": timing.median,
        "p20": timing.p20,
        "p80": timing.p80,
        "GB/s": gbs,
        "copy %": 100 * gbs / copy_gbs,
        "same copy us": floor_us,
        "same copy %": 100 * floor_us / timing.median,
        "compile us": compile_us,
        "vs compile": compile_us / timing.median if compile_us else None,
        "eager us": eager_us,
        "vs eager": eager_us / timing.median if eager_us else None,
        "not captured": reasons,
    }


def weight_only_calls() -> Iterator[Row]:
    """Yield products with int8 and int4 weights."""
    for n, k in ((4096, 4096), (11008, 4096)):
        weight = torch.randint(-127, 128, (n, k), device="cuda", dtype=torch.int8)
        scale = torch.rand(n, device="cuda") * 1e-3 + 1e-3
        half = (weight.float() * scale[:, None]).half()
        int4 = quantize_int4(half)
        half4 = dequantize_int4(int4).half()
        for m in (1, 8, 16, 64):
            x = random_half(m, k)
            yield Row(
                "weight_only_linear", f"{m}x{n}x{k}",
                lambda x=x, w=weight, s=scale: weight_only_module.weight_only_linear(x, w, s),
                # Eager and compiled multiply by a float16 weight: twice the bytes.
                lambda x, w, s, half=half: F.linear(x, half), (x, weight, scale),
                lambda x=x, w=weight, s=scale: weight_only_module.weight_only_linear_ref(
                    x.float(), w, s
                ),
            )  # fmt: skip
            yield Row(
                "int4_linear", f"{m}x{n}x{k}", lambda x=x, w=int4: int4_linear(x, w),
                lambda x, codes, scale, half=half4: F.linear(x, half), (x, *int4),
                lambda x=x, w=int4: int4_linear_ref(x.float(), w),
            )  # fmt: skip


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows as they are shown; reasons were printed where they arose."""
    return [{key: v for key, v in row.items() if key != "not captured"} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", choices=SUITES, action="append")
    parser.add_argument("--out", type=Path, required=True, help="JSON")
    parser.add_argument("--processes", type=int, default=min(os.cpu_count() or 1, 8),
                        help="that compile what is measured afterwards")  # fmt: skip
    options = parser.parse_args()
    compile_s = compile_ahead(options.processes)
    torch.manual_seed(0)
    copy_gbs = copy_bandwidth()
    found: dict[str, Any] = {
        "machine": describe_machine(cuda=torch.version.cuda),
        "limits": {"copy_gbs": copy_gbs, "launch_us": copy_us(32, READ)},
        "compile_s": compile_s,
    }
    show("limits", [found["limits"]])
    suites, failed = options.suite or SUITES, []

    def keep() -> None:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    for suite, calls in (("rows", row_calls), ("weight_only", weight_only_calls)):
        if suite not in suites:
            continue
        found[suite] = []
        for row in calls():
            try:
                found[suite].append(measure(row, copy_gbs))
            except (AssertionError, RuntimeError) as error:  # the others are worth their time
                failed.append(f"{row.name} {row.shape}: {str(error)[:500]}")
            keep()
        show(suite, table(found[suite]))
    for suite, figures_of in (("int8_linear", int8_rows), ("fp8_linear", fp8_rows)):
        if suite not in suites:
            continue
        found[suite] = []
        try:
            for figures in figures_of():
                found[suite].append(figures)
                keep()
        except (AssertionError, RuntimeError, ValueError) as error:
            failed.append(f"{suite}: {str(error)[:500]}")
        show(suite, table(found[suite]))
    keep()
    if failed:
        raise SystemExit("\n".join(failed))


if __name__ == "__main__":
    main()
