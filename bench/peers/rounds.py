"""The parent's side: contenders in processes, timed in turns."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from fastinfer.measure import Timing
from peers.workloads import Case

BENCH = Path(__file__).resolve().parents[1]


class ContenderError(RuntimeError):
    """A contender's process ended; the text is the end of what it printed."""


class Contender:
    """One contender's process, from `with started(...)`; `facts` is what preparing it took."""

    def __init__(self, process: subprocess.Popen[str], log: IO[str]) -> None:
        self._process, self._log = process, log
        self.facts: dict[str, Any] = self._read()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            ContenderError: the process ended.
        """
        assert self._process.stdin is not None
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise self._error() from None
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._error()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _error(self) -> ContenderError:
        self._process.wait()
        self._log.seek(0)
        return ContenderError(self._log.read()[-2000:])


@contextmanager
def started(contender: str, workload: str, threads: int) -> Any:
    """Run a contender's process within the block.

    Raises:
        ContenderError: it could not prepare the workload.
    """
    command = [sys.executable, "-m", "peers.worker", contender, workload, str(threads)]
    paths = [str(BENCH.parent), str(BENCH)]
    with TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        try:
            yield Contender(process, log)
        finally:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Measured:
    """A contender's time, and how much faster than it the one of `time_in_turns`' `against` is."""

    timing: Timing
    ratio: float
    run_peak_mb: float


def time_in_turns(
    contenders: Mapping[str, Contender], case: Case, against: str, rounds: int, seconds: float
) -> dict[str, Measured]:
    """Return each contender's `Measured` from rounds in which each runs for `seconds` in turn.

    `ratio` is the median over the rounds of the contender's time over that of `against`.
    """
    size = {"batch": case.batch, "threads": case.threads}
    peaks = {n: c.ask(do="at", **size)["run_peak_mb"] for n, c in contenders.items()}
    samples: dict[str, list[list[float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            samples[name].append(contender.ask(do="time", seconds=seconds)["ms"])
    medians = {name: [statistics.median(r) for r in taken] for name, taken in samples.items()}
    return {
        name: Measured(
            Timing.from_samples([ms for taken in samples[name] for ms in taken]),
            statistics.median(b / a for a, b in zip(medians[against], medians[name], strict=True)),
            peaks[name],
        )
        for name in contenders
    }
