"""SnapshotBrands: the brands of the products of a published snapshot, counted once it is asked."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import polars as pl

from octogen_dagster.errors import OctogenSnapshotError

if TYPE_CHECKING:
    Latest = Callable[[], pl.LazyFrame | None]


_BRAND = pl.col("brand").struct.field("name")
_UNREADABLE = "The brands of the latest snapshot are not known, since it cannot be read: {}"


class SnapshotBrands:
    """The brands in the snapshot that a read is about to replace.

    A snapshot that cannot be read is as good as none.

    Args:
        latest: Returns the snapshot; None without one.
        warn: Called with a line if the snapshot cannot be read.
    """

    def __init__(self, latest: Latest, warn: Callable[[str], None]) -> None:
        self._latest = latest
        self._warn = warn

    @property
    def exists(self) -> bool:
        """True if there is a snapshot."""
        return self._frame is not None

    def rows(self, catalog: str | None) -> int:
        """Return the number of products of a catalog."""
        return sum(self._of(catalog).values())

    def brands(self, catalog: str | None) -> dict[str, int]:
        """Return the number of products of a catalog by the name of their brand."""
        return {brand: rows for brand, rows in self._of(catalog).items() if brand is not None}

    def _of(self, catalog: str | None) -> Mapping[str | None, int]:
        return self._counts.get((catalog or "").casefold(), {})

    @functools.cached_property
    def _counts(self) -> Mapping[str, Mapping[str | None, int]]:
        """The numbers of rows by catalog, whose case may vary, and brand."""
        counts: defaultdict[str, dict[str | None, int]] = defaultdict(dict)
        try:
            for catalog, brand, rows in self._rows():
                of_catalog = counts[(catalog or "").casefold()]
                of_catalog[brand] = of_catalog.get(brand, 0) + rows
        except (OctogenSnapshotError, pl.exceptions.PolarsError, OSError) as error:
            self._warn(_UNREADABLE.format(error))
        return counts

    def _rows(self) -> list[tuple[str | None, str | None, int]]:
        if self._frame is None:
            return []
        counts = self._frame.group_by("catalog_key", _BRAND).len()
        return counts.collect(engine="streaming").rows()

    @functools.cached_property
    def _frame(self) -> pl.LazyFrame | None:
        try:
            return self._latest()
        except (OctogenSnapshotError, OSError) as error:
            self._warn(_UNREADABLE.format(error))
            return None
