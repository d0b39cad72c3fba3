"""A contender's process without torch: python -m fake_contender NAME TICKS.

What it does is its name.

TICKS: a file. "ticks" writes the time into it again and again while it prepares itself; "waits"
writes two times, between which it wants the machine for itself.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

FOR_EVER = 600.0
#: Milliseconds of a call, by name.
MS = {"ours": [1.0, 1.0], "twice": [2.0, 2.0]}


def answer(**values: object) -> None:
    print(json.dumps(values), flush=True)


def write(file: Path, word: str) -> None:
    with file.open("a", encoding="utf-8") as opened:
        opened.write(f"{word} {time.monotonic()}\n")


def prepare(name: str, ticks: Path) -> None:
    if name == "raises":
        answer(failed="ValueError: no kernel")
        return
    if name == "hangs":
        time.sleep(FOR_EVER)
    if name == "ticks":
        until = time.monotonic() + 3
        while time.monotonic() < until:
            write(ticks, "tick")
            time.sleep(0.005)
    if name == "waits":
        time.sleep(0.3)  # the other has begun
        write(ticks, "from")
        time.sleep(0.3)
        write(ticks, "to")
    answer(sqnr_db=30.0, name=name)


def main() -> None:
    name, ticks = sys.argv[1], Path(sys.argv[2])
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "prepare":
            prepare(name, ticks)
            continue
        if name == "dies":
            print("out of memory, said the driver", file=sys.stderr, flush=True)
            os._exit(3)
        if name == "stuck":
            time.sleep(FOR_EVER)
        answer(ms=MS.get(name, [4.0]))


if __name__ == "__main__":
    main()
