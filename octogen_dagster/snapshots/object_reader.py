"""ObjectReader: reads one snapshot in a bucket, lazily and from one version of the object."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import polars as pl
from polars.io.plugins import register_io_source

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.snapshots.polars_source import polars_source
from octogen_dagster.snapshots.storage_options import masked_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from upath import UPath


STORE_ADVICE = (
    "Check that the bucket is there, that the credentials may use it and that the store can be "
    "reached, and run it again."
)
_STORE_ERROR = "object-store error: "
"""The beginning of Polars' errors that are of the store."""


class DamagedError(OctogenSnapshotError):
    """A file is not a Parquet file."""

    def __init__(self, uri: str, cause: BaseException) -> None:
        super().__init__(
            f"The file {uri} is not a snapshot or is damaged ({cause}). Materialize it again."
        )


class ObjectReader:
    """Reads a snapshot in a bucket.

    Args:
        path: The path of the object.
    """

    def __init__(self, path: UPath) -> None:
        self._path = path

    def exists(self) -> bool:
        """True if the object exists.

        Raises:
            OctogenSnapshotError: The store cannot be asked.
        """
        with self._explained():
            try:
                return bool(self._info()["type"] == "file")
            except FileNotFoundError:
                return False

    def provenance(self) -> dict[str, str]:
        """Read the key-value metadata of the snapshot.

        Raises:
            DamagedError: The object is not a Parquet file.
            OctogenSnapshotError: The object cannot be read.
        """
        with self._explained():
            return polars_source(self._path).read_metadata()

    def count_rows(self) -> int:
        """Count the rows of the snapshot by its footer.

        Raises:
            DamagedError: The object is not a Parquet file.
            OctogenSnapshotError: The object cannot be read.
        """
        with self._explained():
            frame = polars_source(self._path).scan()
            return int(frame.select(pl.len()).collect().item())

    def scan(self) -> pl.LazyFrame:
        """Return the snapshot as a lazy frame, which requests what a query needs.

        The frame is of the present version of the object. Executing it after another snapshot was
        published raises OctogenSnapshotError, as the store has the earlier version no more.

        Raises:
            DamagedError: The object is not a Parquet file.
            OctogenSnapshotError: The object cannot be read.
        """
        with self._explained():
            version = self._version()
            frame = polars_source(self._path).scan()
            schema = frame.collect_schema()

        def read(
            with_columns: list[str] | None,
            predicate: pl.Expr | None,
            n_rows: int | None,
            batch_size: int | None,
        ) -> Iterator[pl.DataFrame]:
            # Polars counts n_rows before the predicate.
            query = frame if n_rows is None else frame.head(n_rows)
            query = query if predicate is None else query.filter(predicate)
            query = query if with_columns is None else query.select(with_columns)
            batches = _batches(query, batch_size)
            while True:
                try:
                    batch = next(batches, None)
                except (OSError, pl.exceptions.PolarsError):
                    self._check_version(version)  # or else the error is not the store's
                    with self._explained(queried=True):
                        raise
                self._check_version(version)
                if batch is None:
                    return
                yield batch

        return register_io_source(read, schema=schema, is_pure=True)

    def _info(self) -> dict[str, object]:
        fs, path = self._path.fs, self._path.path
        fs.invalidate_cache(self._path.parent.path)
        info: dict[str, object] = fs.info(path)
        return info

    def _version(self) -> str:
        return repr(sorted(self._info().items()))

    def _check_version(self, version: str) -> None:
        with self._explained():
            if self._version() != version:
                raise OctogenSnapshotError(
                    f"The snapshot {self._path} was replaced while it was read. Run it again to "
                    "read the new one."
                )

    @contextlib.contextmanager
    def _explained(self, *, queried: bool = False) -> Iterator[None]:
        """Turn the errors of a store into those of a snapshot.

        Args:
            queried: True if the errors may be those of a user's query, which remain as they are.
        """
        try:
            yield
            return
        except OctogenSnapshotError:
            raise
        except Exception as error:  # an object store's errors are of many kinds
            if isinstance(error, pl.exceptions.PolarsError) and _STORE_ERROR not in str(error):
                if queried:
                    raise
                raise DamagedError(str(self._path), error) from error
            reason, cause = masked_error(error, self._path.storage_options)
        reason = reason.partition("\n")[0].removeprefix(_STORE_ERROR)
        raise OctogenSnapshotError(
            f"The snapshot {self._path} cannot be read: {reason}. {STORE_ADVICE}"
        ) from cause


def _batches(query: pl.LazyFrame, size: int | None) -> Iterator[pl.DataFrame]:
    """Execute a query. Polars 2.0, the last for Python 3.10, ends batches early after a panic."""
    if pl.__version__.startswith("2.0."):
        yield query.collect(engine="streaming")
    else:
        yield from query.collect_batches(chunk_size=size, lazy=True)
