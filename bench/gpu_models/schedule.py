"""In which order networks are timed, and what runs beside what.

Preparing torch.compile's contenders is the processors' work, so those of the next cases prepare
themselves meanwhile. Whenever the GPU should be one contender's alone, when ours converts and when
anything is timed, they are held.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turns.process import Contender, ContenderError
from turns.rounds import time_in_turns

from gpu_models.contenders import BACKGROUND, COMPILED, EAGER, OURS

Row = dict[str, Any]
#: A case and a contender's name -> its process.
Launch = Callable[["Case", str], AbstractContextManager[Contender]]


@dataclass(frozen=True)
class Case:
    """A network and a batch size. bars: the least that ours is to be faster, by contender."""

    network: str
    batch: int
    bars: Mapping[str, float] = field(default_factory=dict, hash=False)


#: What has a bar comes first, as a run may be cut off.
CASES = (
    Case("resnet50", 256, {COMPILED: 1.5}),
    Case("resnet50", 1, {EAGER: 3.0}),
    Case("resnet50", 32),
    *(
        Case(name, batch)
        for name in ("mobilenet_v2", "bert_base", "vit_b_16")
        for batch in (1, 32, 256)
    ),
)


@dataclass(frozen=True)
class Limits:
    """Seconds, and how often.

    total: of all cases. prepare: of one contender, from when it is waited for. turn: of a
    contender's turn, of which there are `rounds`. ahead: for so many cases to come what can be is
    prepared. after: nothing is timed before this file is there.
    """

    total: float
    prepare: float = 90.0
    turn: float = 0.15
    rounds: int = 7
    ahead: int = 4
    after: Path | None = None


class _Begun:
    """The processes of a case."""

    def __init__(self, case: Case, launch: Launch) -> None:
        self.case, self._launch = case, launch
        self.stack = ExitStack()
        self.running: dict[str, Contender] = {}
        self.failed: dict[str, str] = {}

    def start(self, name: str, is_asked: bool) -> None:
        """Start a contender, if it has not been. is_asked: to prepare itself at once."""
        if name in self.running or name in self.failed:
            return
        self.running[name] = self.stack.enter_context(self._launch(self.case, name))
        if is_asked:
            with self.noting(name):
                self.running[name].send(do="prepare")

    @contextmanager
    def noting(self, name: str) -> Iterator[None]:
        """Leave out a contender that fails within the block."""
        try:
            yield
        except ContenderError as error:
            self.failed[name] = str(error)
            self.running.pop(name).stop()

    def hold(self) -> None:
        """Pause all its processes."""
        for contender in self.running.values():
            contender.pause()

    def let_go(self) -> None:
        """Let them go on."""
        for contender in self.running.values():
            contender.resume()


def run_cases(
    cases: Sequence[Case],
    contenders: Sequence[str],
    launch: Launch,
    limits: Limits,
    keep: Callable[[Row], None],
    background: Sequence[str] = BACKGROUND,
) -> None:
    """Time every contender at each case in turn, and keep a row of each as soon as it is there.

    A contender that fails or hangs is a reason in the row, and the others are timed. What no time
    is left for has a row that says so.

    Args:
        cases: in this order.
        contenders: names; OURS among them is what the others are compared with.
        launch: starts a process.
        limits: of time.
        keep: what is done with a row.
        background: names of those that prepare themselves while others are prepared.
    """
    until = time.monotonic() + limits.total
    begun: dict[Case, _Begun] = {}
    try:
        for at, case in enumerate(cases):
            if until - time.monotonic() <= 0:
                keep(_row(case) | {"failed": {name: "no time left" for name in contenders}})
                continue
            for other in cases[at : at + 1 + limits.ahead]:
                mine = begun.setdefault(other, _Begun(other, launch))
                for name in (n for n in contenders if n in background):
                    mine.start(name, is_asked=True)
            mine = begun.pop(case)
            try:
                keep(_run_case(mine, list(begun.values()), contenders, limits, until))
            finally:
                mine.stack.close()
    finally:
        for left in begun.values():
            left.stack.close()


def _row(case: Case) -> Row:
    return {"model": case.network, "batch": case.batch, "bars": dict(case.bars)}


def _run_case(
    mine: _Begun, others: Sequence[_Begun], contenders: Sequence[str], limits: Limits, until: float
) -> Row:
    """Return the row of a case whose background contenders were started."""
    asked = list(mine.running)
    facts: dict[str, Any] = {}

    def most() -> float:
        return max(0.0, min(limits.prepare, until - time.monotonic()))

    for name in contenders:  # they build their networks meanwhile
        mine.start(name, is_asked=False)
    for name in asked:
        with mine.noting(name):
            facts[name] = mine.running[name].receive(most())
    while limits.after and not limits.after.exists() and time.monotonic() < until:
        time.sleep(0.2)
    for other in others:
        other.hold()
    try:
        for name in [n for n in mine.running if n not in asked]:
            with mine.noting(name):
                facts[name] = mine.running[name].ask(most(), do="prepare")
        measured, late = time_in_turns(
            mine.running, OURS, limits.rounds, limits.turn, max(0.0, until - time.monotonic())
        )
    finally:
        for other in others:
            other.let_go()
    return {
        **_row(mine.case),
        "ms": {name: result.timing.to_dict() for name, result in measured.items()},
        "ours_vs": {name: result.ratio for name, result in measured.items()},
        "facts": facts,
        "failed": mine.failed | late,
    }
