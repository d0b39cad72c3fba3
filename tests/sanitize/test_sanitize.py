"""The engine under ThreadSanitizer, AddressSanitizer and UBSan: no report, right answers."""

from __future__ import annotations

import os
import subprocess

import engine_build
import pytest
from engine_build import ADDRESS, PLAIN, THREAD

from fastinfer import runtime

pytestmark = pytest.mark.sanitize

#: Of each of the eight callers.
CALLS = int(os.environ.get("FASTINFER_SANITIZE_CALLS", "10000"))
#: Scenario of stress.cpp -> the share of CALLS it makes; batches in slices take longest.
SCENARIOS = {
    "callers": 1.0,
    "evictions": 0.5,
    "alone": 0.1,
    "slices": 0.01,
    "fork_after_use": 0.02,
    "exit_while_busy": 0.02,
    "short_of_memory": 0.1,
    "throwing_job": 0.1,
}
WHILE_BUSY = ("fork_while_busy", "fork_while_posting")
BEST = runtime.supported_isas()[-1]


def run(sanitizer, scenario, case_file, calls):
    program = engine_build.build(sanitizer, "stress")
    done = subprocess.run(
        [program, scenario, case_file, str(calls)],
        capture_output=True,
        text=True,
        timeout=3600,
        env=sanitizer.environment,
        check=False,
    )
    assert done.returncode == 0 and done.stderr == "", (done.returncode, done.stderr[:6000])


def calls_of(scenario):
    return max(5, int(CALLS * SCENARIOS[scenario]))


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("sanitizer", [ADDRESS, THREAD], ids=str)
def test_nothing_is_reported(sanitizer, scenario, case_files):
    run(sanitizer, scenario, case_files[BEST], calls_of(scenario))


@pytest.mark.parametrize("sanitizer", [ADDRESS, THREAD], ids=str)
@pytest.mark.skipif(BEST == "scalar", reason="the CPU has no other ISA, and this one was run above")
def test_nothing_is_reported_on_scalar(sanitizer, case_files):
    run(sanitizer, "callers", case_files["scalar"], max(5, CALLS // 50))


@pytest.mark.parametrize("scenario", [*SCENARIOS, *WHILE_BUSY])
def test_without_sanitizer(scenario, case_files):
    """At full speed, where other interleavings happen.

    Only here a process forks whose other threads are busy: the sanitizers of gcc 12 have locks of
    their own that a child may find held.
    """
    calls = CALLS // 10 if scenario in WHILE_BUSY else calls_of(scenario)
    run(PLAIN, scenario, case_files[BEST], calls)


def test_units_are_the_engine_and_its_kernels():
    """What is built follows setup.py: all of the engine, the drivers and the kernels."""
    csrc = engine_build.ROOT / "csrc"
    built = {str(p.relative_to(csrc)) for p in engine_build.units(csrc)}
    wanted = {str(p.relative_to(csrc)) for p in csrc.glob("engine/**/*.cpp")}
    wanted |= {str(p.relative_to(csrc)) for p in csrc.glob("cpu/isa/*.cpp")}
    wanted |= {str(p.relative_to(csrc)) for p in csrc.glob("cpu/*_driver.cpp")}
    assert wanted <= built
    assert not {"registration.cpp", "cpu/int8_region.cpp"} & built
