"""The stress program finds every mistake of the list: a check that cannot fail shows nothing."""

from __future__ import annotations

import subprocess

import engine_build
import pytest
from mutants import HANGS, MUTANTS

from fastinfer import runtime

pytestmark = pytest.mark.sanitize

#: Seconds after which a run hangs; without the mistake it takes a few.
PATIENCE = 90


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_mutant_is_found(mutant, case_files, tmp_path):
    csrc = mutant.write(engine_build.ROOT / "csrc", tmp_path)
    program = engine_build.build(mutant.sanitizer, "stress", csrc)
    cases = case_files[runtime.supported_isas()[-1]]
    try:
        done = subprocess.run(
            [program, mutant.scenario, cases, str(mutant.calls)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=mutant.sanitizer.environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        found = HANGS
    else:
        assert done.returncode != 0, "not found"
        found = done.stderr
    assert any(text in found for text in mutant.shows), found[:3000]


def test_mutants_that_are_out_of_date_are_refused(tmp_path):
    mutant = next(m for m in MUTANTS if m.path == "engine/arena.cpp")
    csrc = mutant.write(engine_build.ROOT / "csrc", tmp_path / "first")
    with pytest.raises(AssertionError, match="0 times"):
        mutant.write(csrc, tmp_path / "second")
