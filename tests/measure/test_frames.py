"""Where frames are called from does not matter to what they take."""

from __future__ import annotations

import resource
import sys

import pytest

from fastinfer.measure.frames import with_room

CALLS = 64


def nested(depth: int) -> int:
    return nested(depth - 1) if depth else 0


def faults() -> int:
    """Return the pages that a loop of calls, as deep as layers in modules, touches anew."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(CALLS):
        nested(20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def below(depth: int, run) -> int:
    return below(depth - 1, run) if depth else run()


def test_results_and_errors_pass():
    assert with_room(lambda: "result") == "result"
    with pytest.raises(KeyError, match="lost"):
        with_room(lambda: {}["lost"])


def test_no_depth_maps_memory_at_every_call():
    below(400, faults)
    plain = [below(depth, faults) for depth in range(300)]
    roomy = [below(depth, lambda: with_room(faults)) for depth in range(300)]
    assert max(roomy) < CALLS // 2
    if sys.version_info[:2] == (3, 11):  # else nothing would show that the test can fail
        assert max(plain) >= CALLS
