"""CatalogProducts: the products of one catalog over all its walks, each once.

A service that keeps the logic of facets sends each product in exactly one of the walks. One that
ignores a facet sends products again, and one that leaves products out sends fewer than it counts.
The source may count those of another day, so too few are compared with the service's own count of
the moment, which is a lower bound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from octogen_dagster.errors import OctogenSplitCatalogError
from octogen_dagster.frames.dedup import SeenProducts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from octogen_dagster.frames.catalog_read import CatalogRead

_MAX_SHARE_OF_TWICE = 0.01
_FEW = 10
"""A product that gets another brand during the read may come in two walks, or in none."""
_MIN_SHARE_OF_COUNT = 0.98


class CatalogProducts:
    """The products of one catalog that came so far.

    Args:
        reads: The reads of the catalog: one, or one for each of its parts.
        count: Returns the service's own count of the products, a lower bound; None if it has
            none. It is called only if products seem to be missing.
        log: Called with a line if products may be missing.

    Attributes:
        twice: Products that came in another walk before.
        is_doubtful: True if products may be missing, and no earlier read says how many there are.
    """

    def __init__(
        self,
        reads: Sequence[CatalogRead],
        count: Callable[[], int | None] = lambda: None,
        log: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.twice = 0
        self.is_doubtful = False
        self._counted = count
        self._log = log
        self._planned = reads[0].planned
        self._unfinished = len(reads)
        self._all = SeenProducts()
        self._own: dict[CatalogRead, SeenProducts] = {}
        self._count = 0

    @property
    def finished(self) -> bool:
        """True if the last page of each walk came."""
        return not self._unfinished

    def add(self, read: CatalogRead, uuids: pl.Series) -> tuple[pl.Series, pl.Series]:
        """Add products, and return Boolean masks of those new to the catalog and to the walk.

        Raises:
            OctogenSplitCatalogError: Too many products came in more than one walk.
            OctogenPagingError: Far more products came than there can be.
        """
        new = self._all.add(uuids)
        if not self._planned.part:
            return new, new
        new_to_walk = self._own.setdefault(read, SeenProducts()).add(uuids)
        self._count += int(new.sum())
        self.twice += int((new_to_walk & ~new).sum())
        if self.twice > max(_FEW, _MAX_SHARE_OF_TWICE * self._count):
            self._refuse(f"{self.twice:,} of {self._count:,} products came in more than one")
        read.tracker.check_number_of_products(self._count)
        return new, new_to_walk

    def finish(self, read: CatalogRead) -> None:
        """Note that a read has ended. After the last one, check that products are not left out.

        Raises:
            OctogenSplitCatalogError: Products are missing.
        """
        self._own.pop(read, None)
        self._unfinished -= 1
        if self.finished:
            if self._planned.part:
                self._check_count()
            self._all = SeenProducts()  # the old one is large

    def _check_count(self) -> None:
        """Check that not many products are missing; the source may count those of another day."""
        expected = self._planned.expected_rows or 0
        if self._count >= _MIN_SHARE_OF_COUNT * expected:
            return
        counted = self._counted()
        if counted is not None and self._count < _MIN_SHARE_OF_COUNT * counted:
            if self._planned.rows_per_product is None:
                self.is_doubtful = True
                self._log(
                    f"Catalog {self._planned.catalog!r}: only {self._count:,} products came in all "
                    f"walks, and the source counts {expected:,}. Both counts may mean something "
                    "else than what a search lists. To be sure, read it once with "
                    "max_extra_pages_ratio=0, in one walk: later reads are compared with that."
                )
                return
            self._refuse(
                f"only {self._count:,} of the at least {counted:,} products that the service "
                "counts came in any"
            )
        own = "cannot be had" if counted is None else f"is at least {counted:,}"
        self._log(
            f"Catalog {self._planned.catalog!r}: {self._count:,} products came in all walks, and "
            f"the source counts {expected:,}, perhaps those of another day. The service's own "
            f"count {own}."
        )

    def _refuse(self, problem: str) -> NoReturn:
        part = self._planned.part
        assert part
        raise OctogenSplitCatalogError(
            f"Catalog {self._planned.catalog!r}: {problem} of the {part.parts} walks that read it "
            "at once. Walks are disjoint and whole only if the service keeps the logic of the "
            "facet brand_name and of its exclusion. Nothing was published. Run it again; if it "
            "stays, set max_extra_pages_ratio=0 (of OctogenResource or scan_products), which reads "
            "each catalog in one walk, and report it to Octogen."
        )
