"""Every notebook's code runs from top to bottom, and says what its text promises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from notebook import run_notebook

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "notebooks"


@pytest.fixture(autouse=True)
def one_thread(threads):
    """The networks are small; two threads would wait for each other."""
    threads(1)


def test_every_notebook_has_a_test():
    assert sorted(path.name for path in FOLDER.glob("*.ipynb")) == ["prune_and_finetune.ipynb"]


def test_prune_and_finetune():
    scope, printed = run_notebook(FOLDER / "prune_and_finetune.ipynb")
    accuracy = {
        name: scope["accuracy"](scope[name])
        for name in ("model", "smallest", "recovered", "before", "after")
    }
    assert accuracy["model"] > 0.9
    # 0.02 of 1,000 images: 2.4 deviations of the difference at 96 %, had both other errors.
    assert accuracy["recovered"] > accuracy["model"] - 0.02
    assert accuracy["after"] > accuracy["before"] - 0.02
    assert accuracy["smallest"] < accuracy["recovered"] - 0.1
    assert scope["zeros"] > 0.74 * sum(p.numel() for p in scope["recovered"].parameters())
    assert [row.name for row in scope["table"].rows] == ["float", "int8", "sparse int8"]
    assert "accuracy" in printed[-1]


def test_a_cell_that_fails_is_named(tmp_path):
    cells = [
        {"cell_type": "code", "source": ["x = 1\n", "print(x)"]},
        {"cell_type": "markdown", "source": ["text"]},
        {"cell_type": "code", "source": ["x / 0"]},
    ]
    path = tmp_path / "broken.ipynb"
    path.write_text(json.dumps({"cells": cells[:2]}), encoding="utf-8")
    scope, printed = run_notebook(path)
    assert scope["x"] == 1 and printed == ["1\n"]
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    with pytest.raises(ZeroDivisionError) as error:
        run_notebook(path)
    assert str(error.traceback[-1].path).endswith("broken.ipynb, code cell 2")
