"""docs/accuracy.md says what the committed JSON says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from accuracy.document import TASKS, table, with_tables

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results" / "bench_accuracy_graniterapids_avx512vnni.json"
DOCUMENT = ROOT / "docs" / "accuracy.md"


def test_tables_are_the_results():
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_tables(text, found) == text
    assert {cell["task"] for cell in found["cells"]} == set(TASKS)


def test_a_table():
    def value(number):
        return {"rmse": {"value": number}, "sqnr_db": {"value": None if number == 1 else 20.0}}

    def cell(pattern, sparsity, method, number):
        return {
            "pattern": pattern, "sparsity": sparsity, "method": method, "float": value(number),
            "int8": value(number + 0.5), "int8_zipped_bytes": 2**19,
        }  # fmt: skip

    cells = [cell("dense", 0.0, "none", 1), cell("nm64", 0.875, "obs", 2)]
    timings = [
        {"network": "dense", "isa": "torch", "threads": 1, "vs dense int8": 0.1},
        {"network": "dense", "isa": "avx2", "threads": 1, "vs dense int8": 1.0},
        {"network": "nm64 87.5%", "isa": "avx2", "threads": 2, "vs dense int8": 9.0},
    ]
    assert table(cells, timings, ("rmse", "sqnr_db")) == [
        "| | zeros | method | RMSE | SQNR, dB | × dense int8 | file MB, zipped |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| dense | 0 % | none | 1.0000 / 1.5000 | 20.0 | 1.00 | 0.50 |",
        "| nm64 | 87.5 % | obs | 2.0000 / 2.5000 | 20.0 / 20.0 | - | 0.50 |",
    ]


def test_a_document_without_a_task():
    with pytest.raises(ValueError, match="MobileNetV2"):
        with_tables("# nothing", {"cells": [], "timings": []})
