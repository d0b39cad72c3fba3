"""A bar on a terminal for what takes longer than a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Seconds before a bar appears.
PATIENCE = 1.0


@contextmanager
def progress(what: str) -> Iterator[Callable[[str, int, int], None]]:
    """Give a function (text, done, total) that moves a bar on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bars.add_task(what, total=None)
    start, is_shown = time.perf_counter(), False

    def tell(text: str, done: int, total: int) -> None:
        nonlocal is_shown
        if not is_shown and time.perf_counter() - start > PATIENCE:
            bars.start()
            is_shown = True
        bars.update(task, description=f"{what} {text}", completed=done, total=total)

    try:
        yield tell
    finally:
        if is_shown:
            bars.stop()
