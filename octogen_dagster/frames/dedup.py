"""SeenProducts: finds repeated products, in 16 to 32 bytes a product when they are many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FEW = 20_000
_SMALLEST = 1 << 12
_CHUNK = 1 << 14


class SeenProducts:
    """The products seen so far: a set of uuids while they are few, a table of hashes after that.

    NumPy is imported only for the table: the import takes as long as reading many pages.

    Args:
        few: The most products that are kept in a set, where each takes some 130 bytes.
    """

    def __init__(self, few: int = FEW) -> None:
        self._max_few = few
        self._few: set[str] = set()
        self._table: _Table | None = None

    def add(self, uuids: pl.Series) -> pl.Series:
        """Add products, and return a Boolean mask of those that were not seen before."""
        if self._table is None and len(self._few) + len(uuids) > self._max_few:
            self._table = _Table()
            self._table.add(pl.Series(list(self._few), dtype=pl.String))
            self._few = set()
        if self._table is not None:
            return self._table.add(uuids)
        return self._add_to_few(uuids)

    def _add_to_few(self, uuids: pl.Series) -> pl.Series:
        distinct = set(uuids)
        if len(distinct) == len(uuids) and self._few.isdisjoint(distinct):
            self._few |= distinct
            return pl.repeat(True, len(uuids), eager=True)
        new: list[bool] = []
        for uuid in uuids:
            new.append(uuid not in self._few)
            self._few.add(uuid)
        return pl.Series(new, dtype=pl.Boolean)


class _Table:
    """An open-addressing table of 95-bit hashes with double hashing, at most 3/4 full.

    A Python set of a million uuids takes some 130 MB, this takes 25, and 101 MB of five million.
    Two of a million products share a hash with a probability below 1e-16.
    """

    def __init__(self) -> None:
        import numpy

        self._np = numpy
        self._count = 0
        self._clear(_SMALLEST)

    def add(self, uuids: pl.Series) -> pl.Series:
        """Add products, and return a Boolean mask of those that were not seen before."""
        np = self._np
        high = uuids.hash(seed=1).to_numpy() | np.uint64(1)  # 0 marks a free place
        low = uuids.hash(seed=2).to_numpy().astype(np.uint32)
        if not self._has_room(len(self._high), len(uuids)):
            self._grow(len(uuids))
        if len(np.unique(high)) == len(high):
            return pl.Series(self._insert(high, low))
        distinct = uuids.is_first_distinct().to_numpy()
        new = np.zeros(len(high), dtype=bool)
        new[distinct] = self._insert(high[distinct], low[distinct])
        return pl.Series(new)

    def _insert(self, high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint32]) -> Any:
        """Insert distinct keys, and return a mask of those that were not in the table."""
        np = self._np
        last = np.uint64(len(self._high) - 1)
        place = high & last
        step = low.astype(np.uint64) | np.uint64(1)  # odd, so that it reaches every place
        new = np.zeros(len(high), dtype=bool)
        unplaced = np.arange(len(high))
        while len(unplaced):
            at, high_here, low_here = place[unplaced], high[unplaced], low[unplaced]
            free = self._high[at] == 0
            self._high[at[free]] = high_here[free]
            self._low[at[free]] = low_here[free]
            # If several keys took the same free place, the last one has it.
            placed = (self._high[at] == high_here) & (self._low[at] == low_here)
            new[unplaced[placed & free]] = True
            unplaced = unplaced[~placed]
            place[unplaced] = (place[unplaced] + step[unplaced]) & last
        self._count += int(new.sum())
        return new

    def _grow(self, more: int) -> None:
        high, low = self._high, self._low
        size = len(high)
        while not self._has_room(size, more):
            size *= 2
        self._clear(size)
        self._count = 0
        for begin in range(0, len(high), _CHUNK):
            part = slice(begin, begin + _CHUNK)
            taken = high[part] != 0
            self._insert(high[part][taken], low[part][taken])

    def _has_room(self, size: int, more: int) -> bool:
        return 4 * (self._count + more) <= 3 * size

    def _clear(self, size: int) -> None:
        self._high: Any = self._np.zeros(size, dtype=self._np.uint64)
        self._low: Any = self._np.zeros(size, dtype=self._np.uint32)
