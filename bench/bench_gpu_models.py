"""Whole networks on a GPU: converted against eager torch and torch.compile in bfloat16.

A process a network. All compile at the same time, as that is the processors' work; then one after
the other has the GPU to itself, converts, and times its contenders in turns. A time is that of a
call and of waiting for its result, from Python.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu_models.contenders import COMPILED, EAGER, EAGER_BF16, OURS
from gpu_models.networks import NETWORKS
from harness import show

from fastinfer.measure import describe_machine

HERE = Path(__file__).resolve().parent
CONTENDERS = (EAGER, EAGER_BF16, COMPILED, OURS)


class Worker:
    """The process of one network."""

    def __init__(self, name: str, options: list[str]) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gpu_models.contenders", name, *options],
            cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"},
        )  # fmt: skip
        assert self.process.stdout is not None
        self._rest = b""

    def lines(self, until: float) -> Iterator[dict[str, Any]]:
        """Yield what it says until it ends, or the time is over."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while True:
                while b"\n" in self._rest:
                    line, _, self._rest = self._rest.partition(b"\n")
                    yield json.loads(line)
                if not selector.select(max(0.0, until - time.monotonic())):
                    return
                new = os.read(self.process.stdout.fileno(), 1 << 16)
                if not new:
                    return
                self._rest += new

    def tell(self) -> None:
        """Say that the GPU is its own."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def stop(self) -> None:
        """End the process, if it has not."""
        self.process.kill()
        self.process.wait()


def line_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as the table shows it."""
    ms = {name: row.get("ms", {}).get(name, {}).get("median_ms") for name in CONTENDERS}
    ours = ms[OURS]

    def ratio(name: str) -> float | None:
        return ms[name] / ours if ours and ms[name] else None

    convert = row.get("convert", {})
    return {
        "model": row["model"],
        "batch": row["batch"],
        **ms,
        **{f"vs {name}": ratio(name) for name in CONTENDERS if name != OURS},
        "dB": row.get("sqnr_db"),
        "bf16 dB": row.get("bf16 sqnr_db"),
        "convert s": convert.get("convert_s"),
        "layers": " ".join(f"{n} {kind}" for kind, n in convert.get("layers", {}).items()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=tuple(NETWORKS), nargs="+", default=list(NETWORKS))
    parser.add_argument("--batch", type=int, nargs="+", help="instead of each network's own")
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    parser.add_argument("--compile-seconds", type=float, default=120, help="to get ready")
    parser.add_argument("--seconds", type=float, default=220, help="for all, compiling included")
    parser.add_argument("--after", type=Path, help="time nothing before this file is there")
    parser.add_argument("--out", type=Path, required=True, help="JSON")
    options = parser.parse_args()
    passed = ["--no-compile"] if options.no_compile else []
    passed += ["--batch", *map(str, options.batch)] if options.batch else []
    began = time.monotonic()
    rows: list[dict[str, Any]] = []
    late: list[str] = []
    workers = [Worker(name, passed) for name in options.only]
    try:
        until = began + min(options.compile_seconds, options.seconds)
        for worker in workers:
            if next(worker.lines(until), None) is None:
                late.append(f"{worker.name}: not ready within its time, or ended")
                worker.stop()
                continue
        while options.after and not options.after.exists() and time.monotonic() < until:
            time.sleep(0.2)
        for worker in workers:
            if worker.process.poll() is not None:
                continue
            worker.tell()
            for said in worker.lines(began + options.seconds):
                rows.append(said["row"])
                show("one batch", [line_of(said["row"])])
                found = {"machine": describe_machine(), "rows": rows, "late": late}
                options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            if worker.process.poll() is None and time.monotonic() > began + options.seconds:
                late.append(f"{worker.name}: cut off")
            worker.stop()
    finally:
        for worker in workers:
            worker.stop()
    show("whole networks, ms", [line_of(row) for row in rows])
    failed = [f"{r['model']} b{r['batch']}: {n}: {why}" for r in rows
              for n, why in r["failed"].items()]  # fmt: skip
    for row in rows:
        for note in row.get("convert", {}).get("notes", ()):
            print(f"{row['model']} b{row['batch']}: {note}")
    if failed or late:
        raise SystemExit("\n".join(late + failed))


if __name__ == "__main__":
    main()
