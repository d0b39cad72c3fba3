"""Regions under many callers, after a fork and at the interpreter's exit: same bits, no hang."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch

from fastinfer.ops.int8_region import int8_region_ref
from fastinfer.testing.cases_region import region_cases
from fastinfer.testing.compare import assert_equal
from fastinfer.types.packed import HEADER_BYTES

CASES = list(region_cases())
CALLERS, CALLS = 8, 60


def run(args):
    return torch.ops.fastinfer.int8_region(*args)


def assert_same(got, wanted):
    for value, reference in zip(got, wanted, strict=True):
        assert_equal(value, reference)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_any_number_of_threads(case, count, threads):
    """4 may be more than the machine has."""
    threads(count)
    args = case.build()
    assert_same(run(args), int8_region_ref(*args))


def test_a_plan_is_of_the_weight_it_was_made_for():
    """Another weight may come to lie where one was freed; here its header changes in place."""
    inputs, packed, program = CASES[0].build()
    run((inputs, packed, program))
    header, other = packed[0][:HEADER_BYTES].clone(), packed[1][:HEADER_BYTES]
    packed[0][:HEADER_BYTES] = other
    with pytest.raises(RuntimeError, match="int8_conv2d"):
        run((inputs, packed, program))
    packed[0][:HEADER_BYTES] = header
    assert_same(run((inputs, packed, program)), int8_region_ref(inputs, packed, program))


def test_many_callers_of_many_programs(threads):
    """Each caller goes through all programs and shapes in an order of its own."""
    threads(2)
    arguments = [case.build() for case in CASES]
    wanted = [int8_region_ref(*args) for args in arguments]
    wrong = []

    def call(first):
        for i in range(CALLS):
            index = (first + i * (first + 1)) % len(CASES)
            try:
                assert_same(run(arguments[index]), wanted[index])
            except AssertionError as error:
                wrong.append((first, i, CASES[index].label, str(error)))

    callers = [threading.Thread(target=call, args=(i,)) for i in range(CALLERS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong, wrong[0]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_fork(threads):
    """A child has the caller's thread only: the pool must start its own."""
    threads(2)
    case = max(CASES, key=lambda c: "64x57" in c.label)
    args = case.build()
    wanted = int8_region_ref(*args)
    assert_same(run(args), wanted)
    child = os.fork()
    if child == 0:
        try:
            for _ in range(5):
                assert_same(run(args), wanted)
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert_same(run(args), wanted)


EXIT = """
import threading, torch, fastinfer
from fastinfer.testing.cases_region import region_cases

args = next(c for c in region_cases() if "64x57" in c.label).build()

def call():
    for _ in range(200):
        torch.ops.fastinfer.int8_region(*args)

callers = [threading.Thread(target=call) for _ in range(3)]
for caller in callers:
    caller.start()
call()
print("leaving", flush=True)
"""


def test_exit_with_busy_threads():
    """The pool's threads spin, and callers still call, when the main thread ends.

    Not daemon threads: Python kills those inside any op of torch, which aborts the process.
    """
    done = subprocess.run(
        [sys.executable, "-c", EXIT], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0 and done.stdout == "leaving\n", (done.returncode, done.stderr)


def test_memory_stays(threads):
    """Calls of many shapes do not pile up plans or arenas."""
    import resource

    threads(2)
    case = next(c for c in CASES if "64x57" in c.label)
    _, packed, program = case.build()

    def sweep():
        for size in range(40, 120):
            run(([torch.zeros(1, 3, size, size + 7)], packed, program))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    first = sweep()
    for _ in range(3):
        last = sweep()
    assert last - first < 0.02 * first
