"""examples/prune_and_finetune.py as a user starts it: what it shows is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "prune_and_finetune.py"


def test_the_pruned_network_is_as_accurate():
    run = subprocess.run(
        [sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=600,
        env={**os.environ, "PYTHONPATH": str(EXAMPLE.parents[1]), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    rows = re.findall(r"^(.+) accuracy ([\d.]+)%", run.stdout, re.MULTILINE)
    found = {name.strip(): float(percent) for name, percent in rows}
    assert found["dense float"] > 80
    assert found["pruned at once"] < found["dense float"] - 20
    # Of 1000 pictures 3 points are two standard deviations, if the networks' errors are unrelated.
    for name in ("pruned and distilled", "dense int8", "pruned int8"):
        assert found[name] > found["dense float"] - 3, found
    # Groups of 64 all the way: every pruned layer has a multiple of 64 inputs.
    assert "zeros 87.5%" in run.stdout
