"""The process of one contender: prepares a workload, then times it when asked.

Speaks JSON lines: one with its facts when it is ready, then an answer to each request on stdin.
A process for each contender keeps one tool's waiting threads off another's time, and gives every
tool a peak of memory of its own.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from turns.answering import answer_stream, time_for

from fastinfer.measure import sqnr_db, top1_agreement
from peers.contenders import CONTENDERS, EAGER, At, Run
from peers.workloads import Case, Workload, build_workload


def resident_mb(field: str = "VmRSS") -> float:
    """Return megabytes of a field of /proc/self/status: VmRSS now, VmHWM at its highest."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1e3
    raise OSError(f"resident_mb: no field {field} in /proc/self/status")


def forget_peak() -> None:
    """Start VmHWM anew."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def prepare(name: str, work: Workload, threads: int) -> tuple[At, dict[str, Any]]:
    """Return the contender, and what preparing it took: seconds to a first answer, memory."""
    torch.set_num_threads(threads)
    x = work.calibration[:1]
    with torch.inference_mode():
        work.model(x)  # what torch keeps after a first call is no contender's
    before = resident_mb()
    forget_peak()
    start = time.perf_counter()
    at = CONTENDERS[name](work)
    with torch.inference_mode():
        at(Case(1, threads))(x)
    seconds = time.perf_counter() - start
    return at, {"convert_s": seconds, "convert_peak_mb": resident_mb("VmHWM") - before}


def accuracy(run: Run, work: Workload) -> dict[str, Any]:
    """Return how the answers on the held-out inputs compare with the float model's."""
    parts = work.held_out.split(1)
    with torch.inference_mode():
        reference = torch.cat([work.model(part) for part in parts])
        answers = torch.cat([run(part).clone() for part in parts])
    facts: dict[str, Any] = {"sqnr_db": sqnr_db(reference, answers)}
    if not work.is_random:
        facts["agreement"] = top1_agreement(reference, answers)[0]
    return facts


def serve(at: At, work: Workload, requests: Any, answer: Any) -> None:
    """Answer requests until there are no more: `at` compiles, `time` times what is compiled."""
    run: Run | None = None

    def samples(seconds: float) -> list[float]:
        assert run is not None, "asked for a time before `at`"
        with torch.inference_mode():
            return time_for(lambda: run(x), seconds)

    x = work.calibration[:1]
    for line in requests:
        request = json.loads(line)
        if request["do"] == "at":
            case = Case(request["batch"], request["threads"])
            run = at(case)
            x = torch.cat([work.held_out] * (1 + case.batch // len(work.held_out)))[: case.batch]
            forget_peak()
            before = resident_mb()
            samples(0.1)
            answer({"run_peak_mb": resident_mb("VmHWM") - before})
        else:
            answer({"ms": samples(request["seconds"])})


def main() -> None:
    contender, workload, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    answer = answer_stream()
    work = build_workload(workload)
    at, facts = prepare(contender, work, threads)
    if contender != EAGER:
        facts |= accuracy(at(Case(1, threads)), work)
    answer(facts)
    serve(at, work, sys.stdin, answer)


if __name__ == "__main__":
    main()
