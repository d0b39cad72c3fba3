"""Run the code cells of a notebook in one namespace, without Jupyter.

python tests/examples/notebook.py NOTEBOOK      writes what the cells print into the notebook
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any


def run_notebook(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the namespace afterwards and what each code cell printed.

    Raises:
        Whatever a cell raises; the traceback names the cell.
    """
    scope: dict[str, Any] = {"__name__": "__main__"}
    printed = []
    for number, cell in enumerate(_code_cells(_read(path)), 1):
        code = compile("".join(cell["source"]), f"{path.name}, code cell {number}", "exec")
        with contextlib.redirect_stdout(io.StringIO()) as text:
            exec(code, scope)
        printed.append(text.getvalue())
    return scope, printed


def write_outputs(path: Path) -> None:
    """Run the notebook and keep in it what its cells print."""
    _, printed = run_notebook(path)
    notebook = _read(path)
    for number, (cell, text) in enumerate(zip(_code_cells(notebook), printed, strict=True), 1):
        stream = {"name": "stdout", "output_type": "stream", "text": text.splitlines(True)}
        cell["outputs"] = [stream] if text else []
        cell["execution_count"] = number
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def _code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


if __name__ == "__main__":
    write_outputs(Path(sys.argv[1]))
