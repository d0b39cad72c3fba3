"""A bar on stderr for what takes over a second."""

from __future__ import annotations

import time
from types import TracebackType

#: Seconds before a bar is shown; what is done by then needs none.
PATIENCE_S = 1.0


class ProgressBar:
    """Shows text and how many of `total` are done; goes away at the end of a `with`.

    Args:
        enabled: None is where stderr is a terminal.
    """

    def __init__(self, total: int | None = None, enabled: bool | None = None) -> None:
        # rich takes 50 ms to import, which `import fastinfer` is not to pay.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        self._enabled = console.is_terminal if enabled is None else enabled
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeRemainingColumn(),
        )  # fmt: skip
        self._bars = Progress(*columns, console=console, transient=True)
        self._task = self._bars.add_task("", total=total)
        self._started = time.monotonic()
        self._shown = False

    def tell(self, text: str, done: int, total: int | None = None) -> None:
        """Say how far it is; total: where it became known."""
        if not self._enabled:
            return
        if not self._shown and time.monotonic() - self._started > PATIENCE_S:
            self._shown = True
            self._bars.start()
        self._bars.update(self._task, description=text, completed=done, total=total)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown:
            self._bars.stop()
