"""A converted network called very often: same bits, flat memory, no hang.

Each test has a short form, part of the suite, and one of minutes that `make test-stress` runs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

import fastinfer
from fastinfer.testing.cases_region import region_cases

CALLERS = 8
ROOT = Path(__file__).parents[2]


def short_and(full):
    return pytest.mark.parametrize("calls", [40, pytest.param(full, marks=pytest.mark.stress)])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.deep = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.wide = nn.Conv2d(16, 16, 1)
        self.last = nn.Linear(16, 5)

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = torch.relu(self.wide(torch.relu(self.deep(x))) + x)
        return self.last(x.mean((2, 3)))


def region():
    """Return a region as a function, for processes where converting takes longer than the test."""
    case = next(c for c in region_cases() if "64x57" in c.label)
    _, packed, program = case.build()
    return lambda x: torch.ops.fastinfer.int8_region([x], packed, program)[0]


@pytest.fixture(scope="module")
def fast():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 24, 20)
    fast = fastinfer.convert(Net().eval(), x, config="int8", calibration=[x])
    assert "engine" in str(fastinfer.report(fast))
    return fast


def inputs_of(count):
    """Return images of `count` shapes, every one another."""
    g = torch.Generator().manual_seed(count)
    return [torch.randn(1 + i % 3, 3, 9 + i, 20, generator=g) for i in range(count)]


def call_often(fast, inputs, wanted, calls, seed, wrong):
    """Call in an order and with numbers of threads of this caller's own."""
    for i in range(calls):
        if i % 50 == 0:
            torch.set_num_threads(1 + (seed + i // 50) % 4)
        index = (seed + i * (2 * seed + 1)) % len(inputs)
        if not torch.equal(fast(inputs[index]), wanted[index]):
            wrong.append((seed, i, index))


def run_callers(fast, inputs, wanted, calls, callers=CALLERS):
    wrong: list[tuple[int, int, int]] = []
    threads = [
        threading.Thread(target=call_often, args=(fast, inputs, wanted, calls, seed, wrong))
        for seed in range(callers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


@short_and(10_000)
def test_every_answer_has_the_same_bits(fast, calls, threads):
    """More shapes than plans are kept for: they are evicted while others run."""
    threads(1)
    inputs = inputs_of(24)
    wanted = [fast(x) for x in inputs]
    assert run_callers(fast, inputs, wanted, calls) == []


def resident():
    """Return the bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@short_and(10_000)
def test_memory_is_flat(fast, calls, threads):
    threads(2)
    inputs = inputs_of(40)
    wanted = [fast(x) for x in inputs]
    for _ in range(2):
        assert run_callers(fast, inputs, wanted, max(100, calls // 10), 4) == []
    before = resident()
    assert run_callers(fast, inputs, wanted, calls, 4) == []
    assert resident() < 1.02 * before


def in_child(fast, inputs, wanted):
    """Exit this child with 0 when all answers are right, on threads of its own."""
    signal.alarm(60)  # a child that hangs is killed, and its parent sees that
    os._exit(0 if run_callers(fast, inputs, wanted, 10, callers=2) == [] else 1)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("rounds", [2, pytest.param(100, marks=pytest.mark.stress)])
def test_children_after_use(fast, rounds, threads):
    """os.fork and multiprocessing's, after calls, and while another thread calls."""
    threads(2)
    inputs = inputs_of(6)
    wanted = [fast(x) for x in inputs]
    stop = threading.Event()

    def call_until_stopped():
        while not stop.is_set():
            fast(inputs[0])

    def fork_once():
        child = os.fork()
        if child == 0:
            in_child(fast, inputs, wanted)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        process = multiprocessing.get_context("fork").Process(
            target=in_child, args=(fast, inputs, wanted)
        )
        process.start()
        process.join(90)
        assert process.exitcode == 0

    for _ in range(rounds):
        fork_once()
    caller = threading.Thread(target=call_until_stopped)
    caller.start()
    try:
        for _ in range(rounds):
            fork_once()
    finally:
        stop.set()
        caller.join()
    assert run_callers(fast, inputs, wanted, 20) == []


START = """
import contextlib, os, sys, threading
one, daemon, calls = sys.argv[1], sys.argv[2] == "daemon", int(sys.argv[3])
cpus = sorted(os.sched_getaffinity(0))
if one == "before":
    os.sched_setaffinity(0, cpus[:1])
import torch
from test_many_calls import inputs_of, region, run_callers
fast = region()
inputs = inputs_of(6)
wanted = [fast(x) for x in inputs]
assert run_callers(fast, inputs, wanted, calls) == []
if one == "after":
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):  # a caller that ends just now
            os.sched_setaffinity(int(thread), cpus[:1])
    assert run_callers(fast, inputs, wanted, calls) == []

def call():
    for i in range(10 * calls):
        fast(inputs[i % 6])

callers = [threading.Thread(target=call, daemon=daemon) for _ in range(3)]
for caller in callers:
    caller.start()
fast(inputs[0])
print("leaving", flush=True)
"""


def start(one_cpu, daemon, calls):
    return subprocess.run(
        [sys.executable, "-c", START, one_cpu, daemon, str(calls)],
        capture_output=True,
        text=True,
        timeout=1200,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"},
        check=False,
    )


@short_and(2_000)
@pytest.mark.parametrize("one_cpu", ["before", "after"])
def test_on_one_cpu_and_exit_with_busy_threads(one_cpu, calls):
    """The process has one CPU from the start, or has its other taken away while its pool lives."""
    done = start(one_cpu, "joined", calls)
    assert (done.returncode, done.stdout) == (0, "leaving\n"), done.stderr


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.stress)])
def test_exit_with_daemon_threads(rounds):
    """The process ends, and does not hang.

    Not always with 0: Python unwinds daemon threads out of whatever they are in, and one inside any
    op of torch aborts the process; one that goes on may find torch's types destroyed (to_ivalue of
    torch 2.14 then ends with SIGSEGV).
    """
    for _ in range(rounds):
        done = start("never", "daemon", 40)
        assert done.stdout == "leaving\n", done.stderr
        assert done.returncode in (0, -signal.SIGABRT, -signal.SIGSEGV), done.stderr
