"""The collector leaves what was there alone, and collects what is made inside."""

from __future__ import annotations

import gc
import weakref

import pytest

from fastinfer.measure.collector import young_only


class _Node:
    def __init__(self) -> None:
        self.itself = self


def test_cycles_made_inside_are_collected_and_older_ones_afterwards():
    before, old = gc.get_freeze_count(), _Node()
    assert before == 0
    old_one = weakref.ref(old)
    with young_only():
        assert gc.get_freeze_count() > 0
        young_one = weakref.ref(_Node())
        del old
        gc.collect()
        assert young_one() is None and old_one() is not None
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert old_one() is None


def test_it_ends_with_an_error_too():
    with pytest.raises(KeyError), young_only():
        raise KeyError
    assert gc.get_freeze_count() == 0


def test_what_the_caller_froze_stays_frozen():
    """And nothing else is frozen: by what is collected, as frozen objects may end meanwhile."""
    frozen = _Node()
    frozen_one = weakref.ref(frozen)
    gc.freeze()
    try:
        later = _Node()
        later_one = weakref.ref(later)
        del frozen
        with young_only():
            del later
            gc.collect()
            assert later_one() is None and frozen_one() is not None
        gc.collect()
        assert frozen_one() is not None
    finally:
        gc.unfreeze()
    gc.collect()
    assert frozen_one() is None
