"""The contender's side: answers in JSON lines, and times one call again and again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

Answer = Callable[[dict[str, Any]], None]


def answer_stream() -> Answer:
    """Return what writes an answer to the parent; what others print goes to standard error."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return lambda data: print(json.dumps(data), file=out, flush=True)


def time_for(
    call: Callable[[], object], seconds: float, wait: Callable[[], object] = lambda: None
) -> list[float]:
    """Return milliseconds of each call in about that time, after two that do not count.

    wait: for what a call began and did not finish, as on a GPU; it is part of a call's time.
    """
    for _ in range(2):
        call()
    wait()
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while not samples or time.perf_counter() < end:
        start = time.perf_counter_ns()
        call()
        wait()
        samples.append((time.perf_counter_ns() - start) / 1e6)
    return samples
