"""A progress bar for reads, in a terminal or a notebook."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from octogen_dagster.reading.statistics import ScanStatistics


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[ScanStatistics], None]]:
    """Show a progress bar in a notebook cell, or on stderr if stderr is a terminal."""
    from tqdm import tqdm

    ipython = sys.modules.get("IPython")
    is_notebook = hasattr(ipython and ipython.get_ipython(), "kernel")  # missing in a terminal
    with tqdm(bar_format="{bar:20} {desc}", disable=False if is_notebook else None) as bar:

        def show(statistics: ScanStatistics) -> None:
            bar.n, bar.total = statistics.received_rows, statistics.likely_rows
            if statistics.complete:
                bar.total = bar.n = max(bar.n, 1)
            bar.set_description_str(statistics.progress())

        yield show
