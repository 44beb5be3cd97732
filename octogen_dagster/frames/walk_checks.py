"""CatalogProducts: the products of one catalog over all its walks, each once.

A service that keeps the logic of facets sends each product in exactly one of the walks. One that
ignores a facet sends products again, and one that does not count products without a brand among the
excluded ones leaves them out. Both are noticed by what arrives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import polars as pl

from octogen_dagster.errors import OctogenSplitCatalogError
from octogen_dagster.frames.dedup import SeenProducts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from octogen_dagster.frames.catalog_read import CatalogRead
    from octogen_dagster.frames.snapshot_brands import SnapshotBrands

_MAX_SHARE_OF_TWICE = 0.01
_FEW = 10
"""A product that gets another brand during the read may come in two walks, or in none."""
_MIN_SHARE_OF_COUNT = 0.98
_MAX_MISSING_OF_SAMPLE = 1
_MIN_BRANDLESS = 20


class CatalogProducts:
    """The products of one catalog that came so far.

    Args:
        reads: The reads of the catalog: one, or one for each of its parts.

    Attributes:
        twice: Products that came in another walk before.
    """

    def __init__(self, reads: Sequence[CatalogRead]) -> None:
        self.twice = 0
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
        """
        new = self._all.add(uuids)
        if not self._planned.part:
            return new, new
        new_to_walk = self._own.setdefault(read, SeenProducts()).add(uuids)
        self._count += int(new.sum())
        self.twice += int((new_to_walk & ~new).sum())
        if self.twice > max(_FEW, _MAX_SHARE_OF_TWICE * self._count):
            self._refuse(f"{self.twice:,} of {self._count:,} products came in more than one")
        return new, new_to_walk

    def finish(self, read: CatalogRead, snapshot: SnapshotBrands | None) -> None:
        """Note that a read has ended. After the last one, check that products are not left out.

        Args:
            read: The read.
            snapshot: The brands of the snapshot that is replaced, if they are known.

        Raises:
            OctogenSplitCatalogError: Products are missing.
        """
        self._own.pop(read, None)
        self._unfinished -= 1
        if self.finished:
            if self._planned.part:
                self._check_whole(snapshot)
            self._all = SeenProducts()  # the old one is large

    def _check_whole(self, snapshot: SnapshotBrands | None) -> None:
        planned, sample = self._planned, self._planned.sample
        missing = len(sample) - self._arrived(sample)
        if missing > _MAX_MISSING_OF_SAMPLE:
            self._refuse(f"{missing} of the {len(sample)} products of its first page came in none")
        expected = planned.product_count or 0
        rows = snapshot.rows(planned.catalog) if snapshot else 0
        if self._count < _MIN_SHARE_OF_COUNT * min(expected, rows or expected):
            self._refuse(
                f"only {self._count:,} of the {expected:,} products that the source counts came in "
                "any"
            )
        if snapshot:
            self._check_brandless(snapshot)

    def _check_brandless(self, snapshot: SnapshotBrands) -> None:
        """Check that products without a brand came as often as those with one."""
        branded, brandless = (
            snapshot.sample(self._planned.catalog, with_brand=each) for each in (True, False)
        )
        if len(brandless) < _MIN_BRANDLESS or not branded:
            return
        arrived = self._arrived(brandless)
        if 2 * arrived * len(branded) < self._arrived(branded) * len(brandless):
            self._refuse(
                f"{len(brandless) - arrived} of {len(brandless)} products without a brand that the "
                "latest snapshot has came in none"
            )

    def _arrived(self, uuids: Sequence[str]) -> int:
        return len(uuids) - int(self._all.add(pl.Series(uuids, dtype=pl.String)).sum())

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
