"""The histories of all catalogs as one Delta table."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.history import HISTORY_SCHEMA
from octogen_dagster.frames.history_files import history_files, scan_history
from octogen_dagster.frames.observed import OBSERVED
from octogen_dagster.store import Store
from octogen_dagster.validation import require_extras

if TYPE_CHECKING:
    from deltalake import DeltaTable

_SCHEMA = pl.Schema({**HISTORY_SCHEMA, "change": pl.String()})  # Delta has no enumerations
_MAX_REASON = 500
_MAX_NAMED = 10
_LOGGER = logging.getLogger(__name__)
_HASH = "row_hash"
_KEY = ["catalog_key", "uuid", "valid_from"]
_SAME_ROW = (
    "target.uuid = source.uuid AND target.valid_from = source.valid_from AND "
    "(target.catalog_key = source.catalog_key OR "
    "target.catalog_key IS NULL AND source.catalog_key IS NULL)"
)


def export_history(
    base_dir: str,
    uri: str,
    *,
    asset: str,
    storage_options: Mapping[str, Any] | None = None,
) -> list[str]:
    """Merge the histories of all catalogs into one Delta table, which is made if there is none.

    The table has the columns of `octogen_dagster.HISTORY_SCHEMA`, with `change` as text, and is
    partitioned by `catalog_key`. A row is known by `catalog_key`, `uuid` and `valid_from`: one that
    is new is inserted, one that differs, such as one that was closed, is updated, and one that the
    history of its catalog has no more is deleted. The rows of a catalog that has no history any
    more stay as they are, and a warning names it. Each history is one commit, which carries the
    snapshots that it was made of as the version of a transaction: an export that died is continued
    by the next one, and what the table has already is not written again.

    Args:
        base_dir: The folder or bucket of `ParquetSnapshotIOManager`.
        uri: The path or the URL of the table.
        asset: The key of an asset of `build_product_history_asset`, such as
            `octogen_products_history`.
        storage_options: The storage options of `ParquetSnapshotIOManager`, with which a table in a
            bucket is reached too.

    Returns:
        The catalogs whose histories were merged; "" stands for a history of many catalogs.

    Raises:
        OctogenSnapshotError: There is no history, the table cannot be written, or it has other
            columns.
        MissingPackageError: The extra `delta` is not installed.
    """
    require_extras("export_history", "delta")
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    store = Store(base_dir, storage_options)
    files = history_files(store, asset)
    options = {name: _text(value) for name, value in (storage_options or {}).items()}
    merged = []
    try:
        table = DeltaTable.create(
            uri, _SCHEMA, mode="ignore", partition_by=["catalog_key"], storage_options=options
        )
        _check_columns(table, uri)
        for catalog, key in files.items():
            transaction = f"octogen-dagster/{asset}/{catalog}"
            # Before the rows: if the file is replaced in between, the next export merges it again.
            version = _version(store.metadata(key))
            if table.transaction_version(transaction) != version:
                _merge(table, store.scan(key), catalog, transaction, version)
                merged.append(catalog)
    except (DeltaError, OSError) as error:
        raise OctogenSnapshotError(
            f"The history {asset} could not be exported to {uri}: {_reason(error)}. The "
            "table is whole. Run it again: what was merged is not merged again."
        ) from None
    if "" not in files and (left := _left(table, base_dir, asset, files, storage_options)):
        _LOGGER.warning(
            f"The table {uri} keeps the rows of {len(left):,} catalogs of which the history "
            f"{asset} in {base_dir} has no file: {', '.join(left[:_MAX_NAMED])}"
            f"{', …' if len(left) > _MAX_NAMED else ''}. Delete them from the table if those "
            "catalogs are not to be in it."
        )
    return merged


def _check_columns(table: DeltaTable, uri: str) -> None:
    columns = pl.scan_delta(table).collect_schema()
    if differing := [name for name, dtype in _SCHEMA.items() if columns.get(name) != dtype]:
        raise OctogenSnapshotError(
            f"The Delta table {uri} is not of a history: it has no columns {', '.join(differing)} "
            "of the types of a history. Nothing was written. Name a table of its own."
        )


def _left(
    table: DeltaTable,
    base_dir: str,
    asset: str,
    files: Mapping[str, str],
    storage_options: Mapping[str, Any] | None,
) -> list[str]:
    """The catalogs of a table that are in no file of the history."""
    stored = {partition["catalog_key"] for partition in table.partitions()}
    names = {name.lower() for name in files}
    unnamed = {key for key in stored if key and key.lower() not in names}
    if not unnamed:
        return []
    # In an asset of one's own a file may be named by something else than its rows' catalogs.
    history = scan_history(base_dir, asset=asset, storage_options=storage_options)
    in_rows = history.select(pl.col("catalog_key").unique()).collect(engine="streaming")
    return sorted(unnamed - {*in_rows.to_series()})


def _version(metadata: dict[str, str]) -> int:
    """A number for the snapshots of a history, which all of its rows follow from."""
    observed = metadata[OBSERVED].encode()
    return int.from_bytes(hashlib.sha256(observed).digest()[:8], "big") >> 1


def _merge(
    table: DeltaTable, history: pl.LazyFrame, catalog: str, transaction: str, version: int
) -> None:
    """Merge one history into the table, in one commit."""
    from deltalake import CommitProperties, Transaction, write_deltalake

    history = history.cast({"change": pl.String})
    stored, predicate = pl.scan_delta(table), _SAME_ROW
    if catalog:
        history = history.with_columns(pl.col("catalog_key").fill_null(catalog))
        # The key in the rows is the service's, which may be written in another case.
        in_rows = history.select(pl.col("catalog_key").unique()).collect().to_series()
        catalogs = sorted({catalog, *in_rows})
        stored = stored.filter(pl.col("catalog_key").is_in(catalogs))
        texts = ", ".join("'{}'".format(key.replace("'", "''")) for key in catalogs)
        predicate += f" AND target.catalog_key IN ({texts})"
    history, stored = _hashed(history), _hashed(stored)
    # Only what differs is merged: a merge holds its source in memory.
    differing = pl.concat(
        [
            _anti_join(history, stored, [*_KEY, _HASH]).with_columns(is_gone=False),
            _anti_join(stored, history, _KEY).with_columns(is_gone=True),
        ]
    ).collect(engine="streaming")
    commit = CommitProperties(app_transactions=[Transaction(transaction, version)])
    if differing.is_empty():  # a merge of nothing would not be committed
        write_deltalake(
            table, pl.DataFrame(schema=_SCHEMA), mode="append", commit_properties=commit
        )
        return
    values = {column: f"source.{column}" for column in _SCHEMA}
    (
        table.merge(
            differing.drop(_HASH),
            predicate,
            source_alias="source",
            target_alias="target",
            commit_properties=commit,
        )
        .when_matched_delete("source.is_gone")
        .when_matched_update(values)
        .when_not_matched_insert(values)
        .execute()
    )


def _reason(error: Exception) -> str:
    """What an error of the library says, which draws a tree and may name a URL that is signed."""
    plain = re.sub(r"\x1b\[\d+m|↳|\?\S*", "", str(error))
    return ": ".join(line.strip() for line in plain.splitlines())[:_MAX_REASON].rstrip(".")


def _text(value: Any) -> str:
    """A storage option as the library of Delta tables takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _hashed(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Add the hash of all that a row says, which no stored table keeps."""
    said = [column for column in _SCHEMA if column not in _KEY and column != "changed"]
    return rows.with_columns(pl.struct(*said, pl.col("changed").list.join(" ")).hash().alias(_HASH))


def _anti_join(rows: pl.LazyFrame, others: pl.LazyFrame, columns: list[str]) -> pl.LazyFrame:
    return rows.join(others.select(columns), on=columns, how="anti", nulls_equal=True)
