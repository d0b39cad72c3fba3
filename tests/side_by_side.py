"""Runs the suite in two processes at once, on a core each; fails where either does.

    PYTHONPATH=. python3 tests/side_by_side.py [pytest's options]     # `make test`

SECOND are folders whose tests compute on one thread, as most others do; they take about as long
as all the rest. The first process runs what SECOND does not name, so a new folder is not left out.
What the second one says is shown when both are done.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECOND = ("ptx", "cuda", "kernels", "compress", "paths", "nn", "lower", "passes", "graph")


def has_gpu() -> bool:
    """Return whether a GPU may be here, which two processes would share while they time on it."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def main(options: list[str]) -> int:
    """Return 0 where both processes passed."""
    # As an interrupt does: end both processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    pytest = [sys.executable, "-m", "pytest", *options]
    folders = [f"tests/{name}" for name in SECOND]
    # Of its own: which tests failed last.
    second = [*pytest, "-o", "cache_dir=.pytest_cache/second", *folders]
    first = [*pytest, *(f"--ignore={folder}" for folder in folders)]
    with tempfile.TemporaryFile() as said:
        beside = subprocess.Popen(second, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT)
        try:
            if has_gpu():
                beside.wait()
            codes = {"all other tests": subprocess.call(first, cwd=ROOT)}
            codes[" ".join(folders)] = beside.wait()
        finally:
            beside.kill()
        said.seek(0)
        print(f"\n{' '.join(folders)}:", flush=True)
        sys.stdout.buffer.write(said.read())
        sys.stdout.flush()
    for name, code in codes.items():
        print(f"{name}: {'passed' if code == 0 else f'FAILED, exit {code}'}")
    return int(any(codes.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
