"""Contenders timed in turns, so that a slow moment of the machine hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

from fastinfer.measure import Timing
from turns.process import Contender, ContenderError

#: Seconds that an answer may take beyond those that were asked for, where there is a limit; and of
#: these what it has however late it is.
SLACK, LEAST_SLACK = 20.0, 3.0


@dataclass(frozen=True)
class Measured:
    """A contender's time, and how much faster than it the one of `time_in_turns`' `against` is."""

    timing: Timing
    ratio: float | None


def time_in_turns(
    contenders: Mapping[str, Contender],
    against: str,
    rounds: int,
    seconds: float,
    limit: float | None = None,
) -> tuple[dict[str, Measured], dict[str, str]]:
    """Return what was measured in rounds in which each runs for `seconds` in turn, and failures.

    One that fails is left out from then on; the others go on. `ratio` is the median over the rounds
    of a contender's time over that of `against`; None where that one failed.

    Args:
        contenders: processes that answer {"do": "time", "seconds": s} with {"ms": [...]}.
        against: the name of one of them.
        rounds: how often each has its turn.
        seconds: of a turn.
        limit: seconds for all rounds together, of which there is at least one; None: any.
    """
    until = None if limit is None else time.monotonic() + limit
    samples: dict[str, list[list[float]]] = {name: [] for name in contenders}
    failed: dict[str, str] = {}
    for done in range(rounds):
        if done and until is not None and time.monotonic() > until:
            break
        for name, contender in contenders.items():
            if name in failed:
                continue
            slack = None if until is None else min(SLACK, until - time.monotonic())
            most = None if slack is None else seconds + max(LEAST_SLACK, slack)
            try:
                samples[name].append(contender.ask(most, do="time", seconds=seconds)["ms"])
            except ContenderError as error:
                failed[name] = str(error)
    whole = {name: taken for name, taken in samples.items() if name not in failed}
    medians = {name: [statistics.median(r) for r in taken] for name, taken in whole.items()}

    def ratio(name: str) -> float | None:
        if against not in medians:
            return None
        pairs = zip(medians[against], medians[name], strict=True)
        return statistics.median(theirs / ours for ours, theirs in pairs)

    return {
        name: Measured(Timing.from_samples([ms for r in taken for ms in r]), ratio(name))
        for name, taken in whole.items()
    }, failed
