"""The contenders of bench_peers, in processes of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from turns.process import Contender
from turns.process import started as run_process


@contextmanager
def started(contender: str, workload: str, threads: int) -> Iterator[Contender]:
    """Run a contender's process within the block; its `facts` are what preparing it took.

    Raises:
        ContenderError: it could not prepare the workload.
    """
    with run_process(["peers.worker", contender, workload, str(threads)]) as process:
        process.facts = process.receive()
        yield process
