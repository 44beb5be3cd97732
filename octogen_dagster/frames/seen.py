"""Which products a walk has brought already, in 16 bytes a product."""

from __future__ import annotations

import polars as pl

_HALF = pl.lit(2**64, dtype=pl.UInt128)


class SeenProducts:
    """The products seen so far, kept as sorted runs of 128-bit hashes.

    A Python set of a million uuids takes some 130 MB; this takes 16. Two of a million products
    share a hash with a probability below 1e-26.
    """

    def __init__(self) -> None:
        self._runs: list[pl.Series] = []

    def add(self, uuids: pl.Series) -> pl.Series:
        """Note products; a Boolean mask of those that had not been seen before."""
        key = pl.col("key")
        hashes = pl.LazyFrame({"uuid": uuids}).select(
            pl.col("uuid").hash(seed=1).cast(pl.UInt128) * _HALF
            + pl.col("uuid").hash(seed=2).cast(pl.UInt128)
        )
        keys = hashes.select(key=pl.col("uuid"))
        is_new = key.is_first_distinct()
        for run in self._runs:
            at = pl.lit(run).search_sorted(key).clip(upper_bound=len(run) - 1)
            is_new &= pl.lit(run).gather(at) != key
        seen = keys.select("key", new=is_new).collect()
        self._push(seen.filter("new").get_column("key").sort())
        return seen.get_column("new")

    def _push(self, run: pl.Series) -> None:
        if run.is_empty():
            return
        while self._runs and len(self._runs[-1]) <= 4 * len(run):
            run = pl.concat([self._runs.pop(), run]).sort()
        self._runs.append(run)
