"""The progress of a read, shown now and then, in a terminal or in a notebook."""

from __future__ import annotations

import html
import importlib
import sys
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

if TYPE_CHECKING:
    from rich.progress import Progress

    from octogen_dagster.reading.statistics import ScanStatistics

_BAR_WIDTH = 20


class ProgressBar:
    """A bar on stderr if that is a terminal, or in the cell of a notebook; nothing elsewhere.

    Use it as a context manager around one execution of a frame.
    """

    def __init__(self) -> None:
        self._terminal: Progress | None = None
        self._display = _display_of_notebook()
        self._cell: Any = None

    def __enter__(self) -> Self:
        if self._display is None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn
            from rich.table import Column

            self._terminal = Progress(
                BarColumn(bar_width=_BAR_WIDTH),
                TextColumn("{task.description}", markup=False, table_column=Column()),
                console=Console(file=sys.stderr, force_jupyter=False),
                # No thread of its own, and nothing to restore: Polars may leave a read suspended.
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._terminal.add_task("")
            self._terminal.start()
            self._terminal.console.show_cursor()
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal:
            self._terminal.stop()

    def show(self, statistics: ScanStatistics) -> None:
        """Show the statistics so far."""
        line = statistics.progress()
        done, total = statistics.received_rows, statistics.likely_rows
        if statistics.complete:
            total = done = max(done, 1)
        if self._terminal:
            (task,) = self._terminal.task_ids
            self._terminal.update(task, description=line, completed=done, total=total, refresh=True)
        elif self._display:
            value = f' value="{done}" max="{total}"' if total else ""
            shown = {
                "text/plain": line,
                "text/html": f"<progress{value}></progress> {html.escape(line)}",
            }
            if self._cell is None:
                self._cell = self._display(shown, raw=True, display_id=True)
            else:
                self._cell.update(shown, raw=True)


def _display_of_notebook() -> Any:
    """Return the function that displays something in a cell; None outside of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if not hasattr(shell, "kernel"):  # the shell of a terminal has none
        return None
    return importlib.import_module("IPython.display").display
