"""Which sparse kernel serves a shape, replayed over what an H100 measured; asked without a GPU."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import pytest
from cuda_library import built_library

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import fit_gpu_sparse as fit  # noqa: E402

KERNELS = built_library()
ASKED = fit.questions(BENCH / "results" / "gpu_sparse_h100.json")
TWO_OF_FOUR = [q for q in ASKED if not q.channels]
SHARED = [q for q in ASKED if q.channels]


def chosen(q):
    config = KERNELS.choose_config(
        q.m, q.n, q.k, 1, q.source, 90, 132, True, q.channels, int(q.channels > 0), *q.patches
    )
    return fit.name_of(config)


@pytest.mark.parametrize(
    ("asked", "on_average", "at_most"), [(TWO_OF_FOUR, 0.012, 0.17), (SHARED, 0.011, 0.125)]
)
def test_choices_are_near_the_best_measured(asked, on_average, at_most):
    lost = [
        {c.name: c.us for c in q.candidates}.get(chosen(q), q.dense_us) / q.best_us - 1
        for q in asked
    ]
    assert len(lost) == (45 if asked is TWO_OF_FOUR else 115)
    assert statistics.fmean(lost) <= on_average
    assert max(lost) <= at_most
    assert sum(loss <= 0.05 for loss in lost) >= 0.92 * len(lost)


def test_the_script_chooses_as_the_op_does():
    for q in ASKED:
        name, _ = fit.choice(q, {})
        op = chosen(q)
        is_dense = op.split()[0] in ("mma", "wgmma")
        assert name == op or (name == "dense" and is_dense), q.shape


def test_constants_by_name():
    costs = KERNELS.sparse_costs()
    size = {"m": 4096, "n": 4096, "k": 4096}
    tile = ("sparse_wgmma", 128, 64, 1)
    plain = KERNELS.cycles(*tile, **size)
    assert plain == KERNELS.cycles(*tile, **size, constants=costs)
    more = {"two_stage": costs["two_stage"] + 10}
    # 32 x 64 tiles on 132 multiprocessors are 16 rounds; each has 32 stages.
    found = KERNELS.cycles(*tile, **size, constants=more) - plain
    assert found == pytest.approx(16 * 32 * 10)
    with pytest.raises(ValueError, match="cycles: no constant stage"):
        KERNELS.cycles("sparse_wgmma", 256, 128, 1, **size, constants={"stage": 1})
    with pytest.raises(ValueError, match="cycles: no kernel fast"):
        KERNELS.cycles("fast", 256, 128, 1, **size)
