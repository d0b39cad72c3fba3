"""fastinfer against OpenVINO, ONNX Runtime and torch on whole models: make bench-peers.

Every contender has a process of its own; they are timed in turns on the same inputs, and calibrated
with the same ones. `vs` above 1: fastinfer is faster. What a contender cannot do is said, not left
out. `handover ns`, before the rounds and after them: see measure_handover.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from harness import measure_handover, results_path, show, write_json
from peers.contenders import CONTENDERS, EAGER, ON_REQUEST, OPENVINO_INT8, OURS
from peers.picture import plot_ratios
from peers.rounds import started
from peers.workloads import CASES, ISLAND_CASES, TRANSFORMER_CASES, Case
from turns.process import Contender, ContenderError
from turns.rounds import time_in_turns

Row = dict[str, Any]


def start_all(
    stack: ExitStack, names: list[str], workload: str, threads: int
) -> tuple[dict[str, Contender], dict[str, str]]:
    """Return the contenders that could prepare the workload, and why the others could not."""
    running: dict[str, Contender] = {}
    failed: dict[str, str] = {}
    for name in names:
        try:
            running[name] = stack.enter_context(started(name, workload, threads))
        except ContenderError as error:
            failed[name] = str(error)
            print(f"{workload}: {name} failed:\n{error}", flush=True)
    return running, failed


def compiled_at(
    running: dict[str, Contender], failed: dict[str, str], case: Case
) -> dict[str, float]:
    """Return each contender's peak of memory at a case; those that fail are moved to `failed`."""
    peaks: dict[str, float] = {}
    for name, contender in list(running.items()):
        try:
            asked = contender.ask(do="at", batch=case.batch, threads=case.threads)
            peaks[name] = asked["run_peak_mb"]
        except ContenderError as error:
            failed[name] = str(error)
            del running[name]
    return peaks


def bench_workload(workload: str, options: argparse.Namespace) -> list[Row]:
    """Return a row for each case of the workload and contender."""
    rows: list[Row] = []
    all_cases = {**CASES, **ISLAND_CASES, **TRANSFORMER_CASES}[workload]
    for threads in sorted({case.threads for case in all_cases}, reverse=True):
        # Prepared anew for each number of threads: convert chooses by time.
        cases = [c for c in all_cases if c.threads == threads]
        with ExitStack() as stack:
            running, failed = start_all(stack, options.contenders, workload, threads)
            for case in cases:
                peaks = compiled_at(running, failed, case)
                handover = [measure_handover()]
                measured, late = time_in_turns(running, OURS, options.rounds, options.seconds)
                handover.append(measure_handover())
                failed |= late
                rows += [
                    {
                        "model": workload,
                        "batch": case.batch,
                        "threads": threads,
                        "contender": name,
                        **result.timing.to_dict(),
                        "ours_vs": result.ratio,
                        "bar": case.bar if name == OPENVINO_INT8 else None,
                        "run_peak_mb": peaks[name],
                        "handover_ns": handover,
                        **running[name].facts,
                    }
                    for name, result in measured.items()
                ]
                running = {name: running[name] for name in measured}
            rows += [
                {"model": workload, "threads": threads, "contender": name, "failed": why}
                for name, why in failed.items()
            ]
    return rows


def times_table(rows: list[Row]) -> list[Row]:
    """Return a line per case: milliseconds of each contender and ours over the best other."""
    lines: dict[tuple[str, Any, int], Row] = {}
    for row in rows:
        if "failed" in row:
            continue
        key = (row["model"], row["batch"], row["threads"])
        handover = "/".join("-" if ns is None else f"{ns:.0f}" for ns in row["handover_ns"])
        line = lines.setdefault(
            key, {"model": key[0], "b": key[1], "T": key[2], "handover ns": handover}
        )
        line[row["contender"]] = row["median_ms"]
        if row["contender"] == OPENVINO_INT8:
            line["vs openvino int8"], line["bar"] = row["ours_vs"], row["bar"]
        if row["contender"] != OURS and row["ours_vs"] is not None:
            line["vs best"] = min(line.get("vs best", float("inf")), row["ours_vs"])
    return list(lines.values())


def facts_table(rows: list[Row]) -> list[Row]:
    """Return a line per model and int8 contender: seconds, memory, accuracy."""
    keys = {
        "convert s": "convert_s",
        "convert peak MB": "convert_peak_mb",
        "run peak MB": "run_peak_mb",
        "SQNR dB": "sqnr_db",
        "agreement": "agreement",
    }
    cases = [r for r in rows if r.get("batch") == 1 and r["threads"] == 2]
    return [
        {
            "model": row["model"],
            "contender": row["contender"],
            **{title: row.get(key) for title, key in keys.items()},
        }
        for row in cases
        if row["contender"] != EAGER
    ]


def filled(lines: list[Row]) -> list[Row]:
    """Return the lines with the same keys in all of them."""
    keys = list(dict.fromkeys(key for line in lines for key in line))
    return [{key: line.get(key) for key in keys} for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = (*CASES, *ISLAND_CASES, *TRANSFORMER_CASES)
    parser.add_argument("--only", choices=known, nargs="+", metavar="MODEL")
    parser.add_argument("--islands", action="store_true", help="networks with float operations")
    parser.add_argument("--transformers", action="store_true", help="on images and on texts")
    default = [name for name in CONTENDERS if name not in ON_REQUEST]
    parser.add_argument("--contenders", choices=tuple(CONTENDERS), nargs="+")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.2, help="per contender and round")
    parser.add_argument("--out", type=Path, help="default: in bench/results, when all models ran")
    options = parser.parse_args()
    name, cases = "bench_peers", CASES
    if options.islands:
        name, cases = "bench_islands", ISLAND_CASES
    if options.transformers:
        name, cases = "bench_transformers", TRANSFORMER_CASES
    is_whole = options.only is None and options.contenders is None
    if options.contenders is None:
        few = [OPENVINO_INT8, EAGER]
        if options.transformers:
            few.append("openvino bf16")
        options.contenders = few if options.islands or options.transformers else default
    if OURS not in options.contenders:
        options.contenders.append(OURS)
    if options.out is None and is_whole:
        options.out = results_path(name)
    rows: list[Row] = []
    for model in options.only or cases:
        start = time.perf_counter()
        found = bench_workload(model, options)
        show(f"{model}: ms, medians", filled(times_table(found)))
        print(f"{time.perf_counter() - start:.0f} s", flush=True)
        rows += found
    show("milliseconds, medians; vs above 1: fastinfer is faster", filled(times_table(rows)))
    show("preparing at batch 1, and accuracy against float", filled(facts_table(rows)))
    write_json(options.out, rounds=options.rounds, seconds=options.seconds, rows=rows)
    if options.out is not None:
        plot_ratios(rows, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
