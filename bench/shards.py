"""Runs pytest in several processes, each with its share of the tests; says what failed.

    python3 bench/shards.py 8 tests/kernels/test_row_kernels.py ...

For files whose tests compile on one core what another process could compile meanwhile. Their folder
has a conftest.py that knows --shard.
"""

from __future__ import annotations

import subprocess
import sys


def main() -> int:
    """Return 0 where all shares passed."""
    count, arguments = int(sys.argv[1]), sys.argv[2:]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "pytest", *arguments, "--shard", f"{i}/{count}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for i in range(count)
    ]  # fmt: skip
    failed = 0
    for i, process in enumerate(processes):
        said, _ = process.communicate()
        print(f"--- share {i} of {count}\n{said}", flush=True)
        failed += process.returncode != 0
    print(f"{count - failed} of {count} shares passed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
