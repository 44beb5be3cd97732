"""The histories of all catalogs as one Delta table."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.history.files import history_files
from octogen_dagster.history.observed import FORGOTTEN, OBSERVED, read_observed
from octogen_dagster.history.table import HISTORY_SCHEMA
from octogen_dagster.printable import count
from octogen_dagster.storage.store import Store
from octogen_dagster.validation import require_extras

if TYPE_CHECKING:
    from deltalake import CommitProperties, DeltaTable

_SCHEMA = pl.Schema({**HISTORY_SCHEMA, "change": pl.String()})  # Delta has no enumerations
_MAX_REASON = 500
_MAX_NAMED = 10
_LAST_COMMITS = 10
_RESTORED = "octogen.restored"
"""The metadata of a commit that says when the table had been restored to an earlier version."""
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
    more stay as they are, and a warning names it. So do columns that somebody added to the table.
    Each history, or all of those that share a catalog, is one commit, which carries the snapshots
    that it was made of as the version of a transaction: an export that died is continued by the
    next one, what the table has already is not written again, and a table that somebody restored to
    an earlier version is brought up to date.

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
        OctogenSnapshotError: There is no history, its files cannot be read, a product is in several
            of them, the table cannot be written, or it lacks columns of a history.
        MissingPackageError: The extra `delta` is not installed.
    """
    require_extras("export_history", "delta")
    from deltalake import CommitProperties, DeltaTable, Transaction
    from deltalake.exceptions import DeltaError

    store = Store(base_dir, storage_options)
    files = history_files(store, asset)
    # Before the rows: if a file is replaced in between, the next export merges it again.
    metadata = {name: store.metadata(key) for name, key in files.items()}
    catalogs = {
        name: _catalogs(name, metadata[name], lambda key=key: store.scan(key))  # type: ignore[misc]
        for name, key in files.items()
    }
    options = {name: _text(value) for name, value in (storage_options or {}).items()}
    merged = []
    try:
        table = DeltaTable.create(
            uri, _SCHEMA, mode="ignore", partition_by=["catalog_key"], storage_options=options
        )
        _check_columns(table, uri)
        restored = _last_restored(table)
        for names in _without_common_catalogs(catalogs):
            transaction = f"octogen-dagster/{asset}/{'/'.join(names)}"
            version = _version([metadata[name] for name in names], restored)
            if table.transaction_version(transaction) != version:
                commit = CommitProperties(
                    custom_metadata={_RESTORED: str(restored)},
                    app_transactions=[Transaction(transaction, version)],
                )
                _merge(table, {name: store.scan(files[name]) for name in names}, commit)
                merged += names
    except (DeltaError, OSError, pl.exceptions.PolarsError) as error:
        raise OctogenSnapshotError(
            f"The history {asset} could not be exported to {uri}: {_reason(error)}. The "
            "table is whole. Run it again: what was merged is not merged again."
        ) from None
    known = {""}.union(*catalogs.values())
    stored = {partition["catalog_key"] or "" for partition in table.partitions()}
    if "" not in files and (left := sorted(key for key in stored if key.lower() not in known)):
        _LOGGER.warning(
            f"The table {uri} keeps the rows of {count(len(left), 'catalog')} of which the history "
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


def _catalogs(
    name: str, metadata: Mapping[str, str], history: Callable[[], pl.LazyFrame]
) -> set[str]:
    """The catalogs of a file's rows, in lower case; it is named by that of rows without one."""
    observed = [each.catalogs for each in read_observed(metadata).values()]
    found = {key for catalogs in observed for key in catalogs or ()}
    if None in observed:
        key = pl.col("catalog_key").fill_null("").str.to_lowercase()
        found |= {*history().select(key.unique()).collect(engine="streaming").to_series()}
    return {key or name.lower() for key in found}


def _without_common_catalogs(catalogs: Mapping[str, set[str]]) -> list[list[str]]:
    """Divide files into groups that share no catalog, since all rows of a catalog are compared."""
    files = Counter(key for keys in catalogs.values() for key in keys)
    sharing = [name for name, keys in catalogs.items() if any(files[key] > 1 for key in keys)]
    alone = [[name] for name in catalogs if name not in sharing]
    return [*alone, sharing] if sharing else alone


def _last_restored(table: DeltaTable) -> int:
    """The version that began when somebody restored an earlier one; -1 if nobody did.

    A restored table has the transactions of all versions, and the rows of an earlier one. Each
    commit of an export says what it found, so that the next one reads the log down to there.
    """
    for limit in (_LAST_COMMITS, None):
        for commit in table.history(limit):
            if commit.get("operation") == "RESTORE":
                return int(commit["version"])
            if _RESTORED in commit:
                return int(commit[_RESTORED])
    return -1


def _version(metadata: Sequence[Mapping[str, str]], restored: int) -> int:
    """A number for the snapshots of histories, which all rows follow from, in a table."""
    said = [*(each.get(name, "") for each in metadata for name in (OBSERVED, FORGOTTEN)), restored]
    digest = hashlib.sha256(json.dumps(said).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _merge(
    table: DeltaTable, histories: Mapping[str, pl.LazyFrame], commit: CommitProperties
) -> None:
    """Merge all histories of some catalogs into the table, in one commit."""
    from deltalake import write_deltalake

    catalog = pl.col("catalog_key")
    history = pl.concat(
        each.with_columns(catalog.fill_null(name) if name else catalog)
        for name, each in histories.items()
    ).cast({"change": pl.String})
    # Somebody may have added columns, which stay as they are.
    stored, predicate = pl.scan_delta(table).select(_SCHEMA.names()), _SAME_ROW
    if "" not in histories:
        # The key in the rows is the service's, which may be written in another case.
        in_rows = history.select(catalog.unique()).collect(engine="streaming").to_series()
        catalogs = sorted({*histories, *in_rows})
        stored = stored.filter(catalog.is_in(catalogs))
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
    if (repeats := differing.filter(differing.select(_KEY).is_duplicated())).height:
        key, uuid = repeats.row(0, named=True)["catalog_key"], repeats.item(0, "uuid")
        raise OctogenSnapshotError(
            f"The product {uuid} of the catalog {key} is in several files of the history, as of "
            f"the same time: {', '.join(sorted(histories))}. Nothing of them was exported, since a "
            "table has a row once. Let each product be in one partition."
        )
    if differing.is_empty():  # a merge of nothing would not be committed
        write_deltalake(
            table,
            pl.DataFrame(schema=_SCHEMA),
            mode="append",
            schema_mode="merge",
            commit_properties=commit,
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
    """The text of an error, without the tree, the plan and the signature of a URL that it has."""
    plain = re.sub(r"\x1b\[\d+m|↳|\?\S*", "", str(error).partition("\n\n")[0])
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
