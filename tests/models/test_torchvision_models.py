"""Every torchvision model through `convert`: it works, it is accurate, it is never slower.

A detector is converted by its submodules, and its body runs in one region of the engine.

Run by `make test-models`. Timings live in bench/, never in a test; this tier is the one exception,
because "never slower than eager" is what "auto" promises and so what must be checked. Each model is
measured here again, interleaved with eager, and fails only when it is slower by more than
`judgement.NOISE` in each of `judgement.TRIES` measurements.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections import Counter

import judgement
import pytest
import torch
from results import Row, kind_of_reason
from zoo import CASES

import fastinfer

pytestmark = pytest.mark.models

LEAST_DB = 10.0
MEDIAN_DB = 20.0
#: Seeds of zoo's calibration batches are small numbers; this input is none of theirs.
UNSEEN = 1000


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_model(case, results):
    row = Row(case.name, case.family, case.size)
    results.rows.append(row)
    model = case.build()
    example = case.inputs(0)
    detector = case.family == "detection"

    start = time.perf_counter()
    fast = fastinfer.convert(model, example, calibration=case.calibration())
    row.convert_s = time.perf_counter() - start
    report = fastinfer.report(fast)
    _describe(row, report)
    if detector:
        assert report.path == "submodules", report.uncaptured
        body = [layer for layer in report.layers if layer.name.startswith("backbone.")]
        if all(layer.precision == "int8" for layer in body):  # one in float parts its region
            assert judgement.body_regions(fast) == 1
    gc.collect()

    with torch.inference_mode():
        unseen = case.inputs(UNSEEN)
        wanted, got = model(*unseen), fast(*unseen)
        judgement.check_form(wanted, got, free_counts=detector)
        if detector:
            row.sqnr_db = judgement.detector_error(model, fast, unseen).sqnr_db
        else:
            row.sqnr_db = judgement.error(wanted, got).sqnr_db
        if case.least != case.size:
            least = case.inputs(UNSEEN, size=case.least)
            judgement.check_form(model(*least), fast(*least))
        row.eager_ms, row.fast_ms, row.ratio = judgement.ratio_of_times(model, fast, example)
    print(" | ".join(row.cells()), flush=True)

    assert row.sqnr_db >= LEAST_DB
    assert row.ratio >= 1 / judgement.NOISE, f"slower: {row.fast_ms} ms, eager {row.eager_ms} ms"


def test_median_accuracy(results):
    """Stands last: it judges what the tests above found."""
    found = [row.sqnr_db for row in results.rows if row.sqnr_db is not None]
    assert found, "no model ran in this session: this test judges those before it"
    low = [(row.model, row.sqnr_db) for row in results.rows if (row.sqnr_db or 0) < LEAST_DB]
    assert not low
    assert statistics.median(found) >= MEDIAN_DB


def _describe(row, report):
    row.path = report.path
    row.layers = len(report.layers)
    row.regions = [region.steps for region in report.regions]
    row.int8_layers = sum(layer.precision.startswith("int8") for layer in report.layers)
    reasons = Counter(kind_of_reason(layer.reason) for layer in report.fallbacks)
    row.kept_float = dict(reasons.most_common())
    row.notes = list(report.notes)
    assert math.isfinite(report.fast_ms)
