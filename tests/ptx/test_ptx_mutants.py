"""The interpreter finds every mistake of the list: a check that cannot fail shows nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from host.runs import Mismatch
from interpreter import Counters, Fault
from ptx_mutants import CONFLICTS, WRONG
from ptx_sparse_mutants import MUTANTS


def conflicts(counters: Counters) -> float:
    """Return passes of a request, over all shared memory's traffic."""
    traffic = counters.shared.values()
    return sum(t.taken for t in traffic) / max(sum(t.requests for t in traffic), 1)


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_mutant_is_found(mutant, built, mutant_ptx):
    whole = built.check(mutant.launch)  # without the mistake nothing is found
    module = mutant_ptx[mutant].result()
    run = mutant.launch.prepare(built.launchers)
    try:
        counters = run.check(
            lambda name: module.kernel(mutant.kernel_name(name)), mutant.launch.order
        )
    except Mismatch:
        found = WRONG
    except Fault as fault:
        found = fault.kind
        assert fault.where or found == "deadlock", fault
    else:
        assert conflicts(counters) > conflicts(whole), "not found"
        found = CONFLICTS
    assert found in mutant.shows


def test_mutants_that_are_out_of_date_are_refused():
    with pytest.raises(AssertionError, match="0 times"):
        replace(MUTANTS[0], old="what no kernel says").text()
