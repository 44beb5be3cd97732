"""SavedWalk: the saved pages of one walk, of earlier runs and of this one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING

from typing_extensions import Self

from octogen_dagster.frames.pages.storage import RemovedError

if TYPE_CHECKING:
    from octogen_dagster.frames.decode import ProductPage
    from octogen_dagster.frames.pages.saved_read import SavedRead
    from octogen_dagster.frames.pages.saver import PageSaver
    from octogen_dagster.frames.pages.segments import SegmentName


class SavedWalk:
    """The saved pages of one walk.

    As a context manager it saves all pages of a walk that ends or fails.

    Attributes:
        pages: The number of pages of earlier runs.
        started_at: When the read began that saved them.
        saver: Saves further pages.
    """

    def __init__(
        self,
        saver: PageSaver,
        started_at: datetime,
        source: SavedRead | None = None,
        *,
        segments: Sequence[SegmentName] = (),
        pages: int = 0,
        log: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.saver = saver
        self.pages = pages
        self.started_at = started_at
        self._source = source
        self._segments = segments
        self._log = log

    @property
    def generation(self) -> str:
        """The generation of the contract of the pages."""
        return self.saver.generation

    def __iter__(self) -> Iterator[ProductPage]:
        """Yield the pages of earlier runs; fewer if another run removes them meanwhile."""
        try:
            if self._source:
                yield from self._source.pages(self._segments)
        except RemovedError as error:
            self._log(f"{error} The service is asked for the pages after those that are left.")

    def append(self, page: ProductPage, generation: str) -> None:
        """Save the next page in the background."""
        self.saver.generation = generation or self.saver.generation
        self.saver.add(page)

    def __enter__(self) -> Self:
        self.saver.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.saver.__exit__(kind, error, traceback)
