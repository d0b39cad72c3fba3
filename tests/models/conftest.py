"""The session's table, and a time limit for each model."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest
from results import Results, default_path
from zoo import CASES

#: Seconds for one model. The largest take a minute on two cores; a hang must not take the night.
LIMIT_S = 600


@pytest.fixture(scope="session")
def results():
    """Return the session's rows; printed at its end, and written.

    FASTINFER_MODELS_JSON names the file. Otherwise a session of all models overwrites this
    machine's table in bench/results, and one of some writes none.
    """
    found = Results()
    yield found
    if found.rows:
        print(f"\n{found}", flush=True)
        path = os.environ.get("FASTINFER_MODELS_JSON", "")
        if not path and {row.model for row in found.rows} == {case.name for case in CASES}:
            path = str(default_path())
        if path:
            found.write(Path(path))
            print(f"wrote {path}")


@pytest.fixture(autouse=True)
def _time_limit():
    def stop(number, frame):
        raise TimeoutError(f"the model took more than {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    gc.collect()  # the graphs of a model hold it in cycles, and the largest weigh 2.5 GB
