"""The parent's side: a process that answers requests in JSON lines, within a time."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

BENCH = Path(__file__).resolve().parents[1]
#: Characters of a log's end that an error shows.
SHOWN = 2000
TRACEBACK = "Traceback (most recent call last)"
#: Folders of this machine, which say nothing elsewhere, the longest path first.
_FOLDERS = sorted({str(BENCH.parent), sys.base_prefix, str(Path.home())}, key=len, reverse=True)


def last_words(log: str) -> str:
    """Return what a process said last: its last traceback, or the log's end.

    Whole lines, of SHOWN characters at most, with the names of files relative to the repository,
    to Python's own folder or to the user's.
    """
    said = log[max(log.rfind(TRACEBACK), 0) :].strip()
    if len(said) > SHOWN:
        said = said[-SHOWN - 1 :].partition("\n")[2] or said[-SHOWN:]
    for folder in _FOLDERS:
        said = said.replace(folder.rstrip("/") + "/", "")
    return said


class ContenderError(RuntimeError):
    """A contender's process ended, or did not answer in time, or says what went wrong."""


class Contender:
    """One contender's process, from `with started(...)`.

    A request is answered in the order in which it was sent. An answer with the key "failed" is an
    error of the contender; its process goes on.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: IO[str]) -> None:
        self._process, self._log = process, log
        self._rest = b""
        #: What it answered when it had prepared itself.
        self.facts: dict[str, Any] = {}

    def ask(self, limit: float | None = None, **request: Any) -> dict[str, Any]:
        """Return the answer to a request.

        Args:
            limit: seconds that it may take; None: any.
            request: what is asked for.

        Raises:
            ContenderError: it failed, ended, or took longer; after the latter two it is gone.
        """
        self.send(**request)
        return self.receive(limit)

    def send(self, **request: Any) -> None:
        """Send a request, and wait for nothing.

        Raises:
            ContenderError: the process ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise self._ended() from None

    def receive(self, limit: float | None = None) -> dict[str, Any]:
        """Return the next answer; see `ask`."""
        assert self._process.stdout is not None
        until = None if limit is None else time.monotonic() + limit
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                left = None if until is None else max(0.0, until - time.monotonic())
                if not selector.select(left):
                    self.stop()
                    raise ContenderError(f"no answer within {limit:.3g} s")
                new = os.read(self._process.stdout.fileno(), 1 << 16)
                if not new:
                    raise self._ended()
                self._rest += new
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise ContenderError(last_words(answer["failed"]))
        return answer

    def pause(self) -> None:
        """Hold the process, so that another has the machine to itself."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a process go on that `pause` holds."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the process, if it has not."""
        self._process.kill()  # also of one that is held
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        # Not its children: what compiles on processors needs no GPU, and ends with its parent.
        if self._process.poll() is None:
            self._process.send_signal(number)

    def _ended(self) -> ContenderError:
        code = self._process.wait()
        self._log.seek(0)
        said = last_words(self._log.read())
        return ContenderError(said or f"its process ended with {code} and said nothing")


@contextmanager
def started(command: Sequence[str], paths: Sequence[Path] = ()) -> Iterator[Contender]:
    """Run a contender's process within the block: `python -m command...`.

    paths: where its modules are, before bench and the repository.
    """
    found = os.pathsep.join(map(str, [*paths, BENCH.parent, BENCH]))
    with TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "PYTHONPATH": found},
        )
        contender = Contender(process, log)
        try:
            yield contender
        finally:
            contender.stop()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with suppress(BrokenPipeError):  # a request that nobody read
                    pipe.close()
