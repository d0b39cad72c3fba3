"""Runs the test suite in two processes at once; fails where either does.

    PYTHONPATH=. python3 tests/side_by_side.py [pytest's options]     # `make test`

SECOND are the folders whose tests compute on one thread: they take the core that the others leave.
The first process runs all that SECOND does not name, so no test is left out. What the second says
is shown when both are done.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECOND = (
    "tests/ptx",
    "tests/kernels",
    "tests/cuda",
)


def main() -> int:
    """Return 0 where both processes passed."""
    pytest = [sys.executable, "-m", "pytest", *sys.argv[1:]]
    first = [*pytest, *(f"--ignore={folder}" for folder in SECOND)]
    # Two processes would overwrite each other's list of what failed last.
    second = [*pytest, "-p", "no:cacheprovider", *SECOND]
    with tempfile.TemporaryFile() as said:
        beside = subprocess.Popen(second, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT)
        try:
            codes = {"all but these": subprocess.call(first, cwd=ROOT)}
            codes[", ".join(SECOND)] = beside.wait()
        finally:
            beside.kill()
        said.seek(0)
        print(f"\n--- {', '.join(SECOND)}, run beside the others", flush=True)
        sys.stdout.buffer.write(said.read())
        sys.stdout.flush()
    for name, code in codes.items():
        print(f"--- {name}: {'passed' if code == 0 else f'FAILED (exit {code})'}")
    return int(any(codes.values()))


if __name__ == "__main__":
    sys.exit(main())
