"""Whole networks on a GPU: converted against eager torch and torch.compile in bfloat16.

    python3 bench/bench_gpu_models.py --out models.json [--only resnet50] [--seconds 225]

Every contender has a process of its own for each network and batch size; they are timed in turns,
after each one's answers were compared with the float model's. A time is that of a call and of
waiting for its result, from Python. The JSON is written anew after each batch size.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_models.contenders import CONTENDERS, OURS
from gpu_models.schedule import CASES, Case, Limits, Row, run_cases
from harness import show
from turns.process import started

from fastinfer.measure import describe_machine


def line_of(row: Row, contenders: Sequence[str]) -> Row:
    """Return a row as the table shows it."""
    facts = row.get("facts", {})
    mine = facts.get(OURS, {})
    others = [name for name in contenders if name != OURS]
    return {
        "model": row["model"],
        "batch": row["batch"],
        **{name: row.get("ms", {}).get(name, {}).get("median_ms") for name in contenders},
        **{f"vs {name}": row.get("ours_vs", {}).get(name) for name in others},
        "bar": " ".join(f"{least} {name}" for name, least in row["bars"].items()) or None,
        **{f"dB {name}": facts.get(name, {}).get("sqnr_db") for name in [*others[1:], OURS]},
        "convert s": mine.get("convert_s"),
        "layers": " ".join(f"{n} {kind}" for kind, n in mine.get("layers", {}).items()),
    }


def failures(rows: Sequence[Row]) -> list[str]:
    """Return a line for each contender that was not timed."""
    return [
        f"{row['model']} b{row['batch']}: {name}: {why}"
        for row in rows
        for name, why in row["failed"].items()
    ]


def wanted_cases(options: argparse.Namespace) -> list[Case]:
    """Return the cases that the command line leaves."""
    return [
        case
        for case in CASES
        if case.network in (options.only or [case.network])
        and case.batch in (options.batch or [case.batch])
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = tuple(dict.fromkeys(case.network for case in CASES))
    parser.add_argument("--only", choices=names, nargs="+", metavar="NETWORK")
    parser.add_argument("--batch", type=int, nargs="+", help="of 1, 32, 256")
    parser.add_argument("--contenders", choices=tuple(CONTENDERS), nargs="+",
                        default=list(CONTENDERS))  # fmt: skip
    parser.add_argument("--seconds", type=float, default=225, help="for all, compiling included")
    parser.add_argument("--prepare-seconds", type=float, default=90, help="for one contender")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--ahead", type=int, default=4, help="cases that compile meanwhile")
    parser.add_argument("--after", type=Path, help="time nothing before this file is there")
    parser.add_argument("--device", default="cuda", help="cpu: to try the processes themselves")
    parser.add_argument("--out", type=Path, required=True, help="JSON")
    options = parser.parse_args()
    limits = Limits(options.seconds, options.prepare_seconds, rounds=options.rounds,
                    ahead=options.ahead, after=options.after)  # fmt: skip
    # Each of those that compile at a time would take all processors for itself.
    share = max(2, (os.cpu_count() or 1) // (options.ahead + 1))
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(share))
    machine = describe_machine()
    rows: list[dict[str, Any]] = []

    def launch(case: Case, name: str) -> Any:
        return started(["gpu_models.worker", name, case.network, str(case.batch), options.device])

    def keep(row: Row) -> None:
        rows.append(row)
        show("one batch", [line_of(row, options.contenders)])
        text = json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n"
        part = options.out.with_suffix(".part")
        part.write_text(text, encoding="utf-8")
        part.replace(options.out)  # whole, or as it was, whenever it is cut off

    run_cases(wanted_cases(options), options.contenders, launch, limits, keep)
    show("whole networks, ms", [line_of(row, options.contenders) for row in rows])
    for row in rows:
        for note in row.get("facts", {}).get(OURS, {}).get("notes", ()):
            print(f"{row['model']} b{row['batch']}: {note}")
    if failures(rows):
        raise SystemExit("\n".join(failures(rows)))


if __name__ == "__main__":
    main()
