"""The parts of bench_accuracy that need no network: cells, what is kept of them, the picture."""

from __future__ import annotations

import json

import pytest
from accuracy.cells import DENSE, METHODS, PATTERNS, SPARSITIES, Cell, CellStore, cells_of
from accuracy.picture import pareto_front, plot_task
from tasks import Figure, Task


def test_every_cell_once_and_each_has_a_file_of_its_own():
    cells = cells_of(PATTERNS, SPARSITIES, METHODS)
    assert cells[0] == DENSE
    assert len({cell.key for cell in cells}) == len(set(cells)) == len(cells)
    assert {c.sparsity for c in cells if c.pattern == "2:4"} == {0.5}
    assert not any((c.pattern, c.method) == ("channel", "sparsegpt") for c in cells)
    assert len([c for c in cells if c.pattern == "nm64"]) == len(SPARSITIES) * len(METHODS)


def test_a_cell_is_read_again_and_half_a_file_is_not(task_cache):
    store, cell = CellStore("digits"), Cell("nm64", 0.5, "obs + distillation")
    assert store.read(cell) is None
    store.path(cell, ".partial").write_text("{", encoding="utf-8")  # killed while writing
    assert store.read(cell) is None
    store.write(cell, {"zeros": 0.5})
    assert CellStore("digits").read(cell) == {"zeros": 0.5}
    assert CellStore("minilm").read(cell) is None


@pytest.mark.parametrize(
    ("sign", "front"),
    [(1, [(1, 0.9), (3, 0.8), (4, 0.1)]), (-1, [(4, 0.1)])],
    ids=["higher", "lower"],
)
def test_the_front_holds_what_no_other_beats(sign, front):
    points = [(1, 0.9), (2, 0.7), (3, 0.8), (4, 0.1)]
    assert pareto_front(points, sign) == front


def test_the_picture_has_a_panel_for_each_method_that_ran(tmp_path):
    fields = dict.fromkeys(Task.__dataclass_fields__)
    task = Task(**{**fields, "name": "t", "title": "T", "headline": "accuracy",
                   "higher_is_better": True, "timed_batch": 1})  # fmt: skip
    rows, timings = [], [row("float", "torch", 1.0)]
    for index, cell in enumerate(cells_of(["nm64"], [0.5, 0.75], METHODS[:2])):
        figures = {"accuracy": {"value": 0.9 - 0.2 * (index > 2), "samples": 1500}}
        rows.append({**vars(cell), "int8": figures})
        timings.append(row(cell.label, "avx512vnni", 2.0 + index))
    path = plot_task(task, rows, timings, tmp_path / "bench")
    assert path.name == "bench_t.png" and path.stat().st_size > 10_000


def row(network, isa, speed):
    return {"network": network, "isa": isa, "threads": 1, "vs float": speed}


def test_infinite_figures_are_not_in_json():
    from accuracy.work import plain

    kept = plain({"sqnr_db": Figure(float("inf"), 3), "accuracy": Figure(0.5, 3)})
    assert json.loads(json.dumps(kept, allow_nan=False)) == {
        "sqnr_db": {"value": None, "samples": 3},
        "accuracy": {"value": 0.5, "samples": 3},
    }
