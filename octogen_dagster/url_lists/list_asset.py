"""build_url_list_asset: synchronize a URL list with a table, and check for rejected URLs."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.catalog_sources import CatalogService
from octogen_dagster.api.url_lists import (
    MAX_LIST_URLS,
    MAX_URL_CHARACTERS,
    CoverageUrlList,
    checked_name,
)
from octogen_dagster.assets.definition import (
    RESOURCE,
    RETRY_POLICY,
    Metadata,
    asset_arguments_of,
    require_asset,
)
from octogen_dagster.background import wait_interruptibly
from octogen_dagster.errors import OctogenUrlListCapacityError, OctogenUrlListError
from octogen_dagster.frames.markdown import inline_table
from octogen_dagster.printable import count, printable
from octogen_dagster.snapshots.asset_decorator import SnapshotRun, snapshot_asset
from octogen_dagster.snapshots.metadata import COLUMN_SCHEMA, type_name
from octogen_dagster.url_lists.sync import (
    DELETE_PENDING,
    PROVISIONING,
    Rejection,
    UrlListSync,
    create_url_list,
    find_url_list,
)
from octogen_dagster.validation import require_percent

URL_LIST = "octogen/url_list"
"""Definition metadata key for the list's name."""
LIST_ID, LIST_NAME = "octogen/url_list_id", "octogen/url_list_name"
"""Materialization metadata keys for the list's id and name.

Both the list asset and the export asset report the id and the name.
"""
REJECTED, REJECTED_URLS = "octogen/rejected", "octogen/rejected_urls"
"""Materialization metadata keys for the number of rejected rows and a preview of these rows."""
ACCEPTED_CHECK = "accepted"
ADDED_COLUMNS: Mapping[str, str] = {
    "normalized_url": "The URL as normalized by Octogen, which is the same for equivalent URLs; "
    "null if the URL was rejected.",
    "rejected_code": "Why the URL was rejected, such as `invalid_url`; null if it is in the list.",
    "rejected_message": "A description of the reason for the rejection.",
}
"""Columns that the asset adds to the table, with their descriptions."""

_REQUIRED = ("url", "sku")
_MAX_REMOVED = "max_removed_percent"
_CHECK_METADATA = (REJECTED, REJECTED_URLS)
_MAX_SHOWN = 10
_MAX_POLL_SECONDS = 10.0
_DELETED = ("url_list_not_found", "url_list_deleting")


def build_url_list_asset(
    name: str | dg.AssetSpec,
    urls: dg.AssetsDefinition | dg.AssetKey,
    *,
    list_name: str | None = None,
    max_removed_percent: float = 20,
    provisioning_timeout: float = 180.0,
    resource_key: str = RESOURCE,
    **asset_arguments: Any,
) -> dg.AssetsDefinition:
    """Build an asset that synchronizes a coverage URL list at Octogen with your table.

    A run creates the list if it does not exist, adds missing URLs and removes URLs that are not in
    the table. Octogen decides which URLs count as equal. For example, `http://` and tracking
    parameters make no difference. If a run is killed, the next run completes its work. All requests
    are free.

    The asset's value is your table with the additional columns `normalized_url`, `rejected_code`
    and `rejected_message`. Rows without a URL (`missing_url`) and rows whose URL has more than
    2,048 characters (`too_long`) are rejected before any request. Octogen can reject other rows,
    for example with `invalid_url`. `build_url_list_checks` warns about rejected rows.

    The metadata contain `octogen/url_list_id`, `octogen/url_list_name`, `octogen/status` and the
    counts `octogen/urls` (distinct URLs in the list), `octogen/added`, `octogen/removed` and
    `octogen/rejected` (rows). They also contain previews of the removed and rejected URLs.

    Octogen takes about a minute to prepare a new list. During this time, the list has the status
    `provisioning`, and the run waits until the list is active. If the list is not active
    after `provisioning_timeout`, the run succeeds with a warning. In this case, the list already
    contains its URLs, and Octogen exports the list once it is active.

    You can change `max_removed_percent` for a single run in the run configuration.

    Args:
        name: The asset's name or `dagster.AssetSpec`.
        urls: An asset or its key. The asset is loaded as a `polars.DataFrame` with the columns
            `url` (a competitor's product page) and `sku` (your SKU; several rows can have the
            same SKU). Other columns are kept. The table can have up to 100,000 distinct URLs.
        list_name: The list's name, at most 80 characters long. Defaults to the asset's name. An
            organization can have up to five lists.
        max_removed_percent: Maximum percentage of the list's URLs that a run can remove. If a run
            would remove more, it fails and changes nothing. If the table has no URLs, nothing is
            removed.
        provisioning_timeout: How long to wait until a new list is active, in seconds.
        resource_key: The resource key of the `OctogenResource`.
        asset_arguments: Any other argument for `@dagster.asset`. With
            `automation_condition=octogen_dagster.follow_upstream()`, the list is updated after its
            table. The default `retry_policy` is the same as in `build_products_asset`.

    Raises:
        TypeError: `urls` is not an asset or key.
        ValueError: The list's name is empty or too long, `max_removed_percent` is not from 0 to
            100, or `partitions_def` is set, because a list cannot have partitions.
    """
    if not isinstance(urls, dg.AssetsDefinition | dg.AssetKey):
        raise TypeError(f"urls must be an asset or its dagster.AssetKey; got {urls!r}.")
    table_key = urls if isinstance(urls, dg.AssetKey) else urls.key
    require_percent(_MAX_REMOVED, max_removed_percent)
    given = asset_arguments_of(name, asset_arguments)
    if given.get("partitions_def") is not None:
        raise ValueError(
            f"Asset {given['name']!r} cannot have partitions, because a list contains all URLs in "
            "its table. Build one asset per list, and remove partitions_def."
        )
    list_name = checked_name(given["name"] if list_name is None else list_name, "list_name")

    @snapshot_asset(
        {
            "ins": {"urls": dg.AssetIn(table_key)},
            "config_schema": _config_schema(max_removed_percent),
            "metadata": {URL_LIST: list_name},
            "description": (
                f"The URLs in {table_key.to_user_string()}, synchronized with Octogen's URL list "
                f"{list_name!r}. If a URL was rejected, its row contains the reason."
            ),
            "retry_policy": RETRY_POLICY,
            "required_resource_keys": {resource_key},
        },
        given,
        resource_key=resource_key,
        loads={"urls": pl.DataFrame},
    )
    def url_list(
        run: SnapshotRun[CatalogService], _partition: str | None, urls: pl.DataFrame
    ) -> Any:
        config = run.context.op_execution_context.op_config
        _check_percent(config[_MAX_REMOVED])
        table = _Table.of(urls, table_key)
        with BlockingClient(run.service, run.stop) as client:
            list_run = _ListRun(run.context, client, list_name, table, config[_MAX_REMOVED])
            return list_run.synchronize(provisioning_timeout)

    return url_list


def build_url_list_checks(
    url_list: dg.AssetsDefinition, *, severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.WARN
) -> list[dg.AssetChecksDefinition]:
    """Build the `accepted` check.

    The check fails if any row in a URL list's table was rejected. A failed check shows a
    preview of the rejected rows.

    Args:
        url_list: An asset built by `build_url_list_asset`.
        severity: The severity of a failed check.

    Returns:
        A list with the check, for `dagster.Definitions(asset_checks=...)`.

    Raises:
        TypeError: `url_list` is not an asset.
        ValueError: `url_list` was not built by `build_url_list_asset`.
    """
    require_url_list(url_list)

    @dg.asset_check(
        asset=url_list.key,
        name=ACCEPTED_CHECK,
        description="Octogen accepted the URL in each row.",
    )
    def accepted(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        records = context.instance.fetch_materializations(url_list.key, limit=1).records
        event = records[0].asset_materialization if records else None
        if event is None or REJECTED not in event.metadata:  # or it was reported manually
            text = "No run has synchronized the list yet."
            return dg.AssetCheckResult(passed=False, severity=severity, description=text)
        rejected = int(str(event.metadata[REJECTED].value))
        text = "All rows are in the list."
        if rejected:
            text = _rejected_text(rejected)
            text += ". Correct the URLs in the table, or remove the rows."
        shown = {each: event.metadata[each] for each in _CHECK_METADATA if each in event.metadata}
        return dg.AssetCheckResult(
            passed=not rejected, severity=severity, description=text, metadata=shown
        )

    return [accepted]


def require_url_list(asset: dg.AssetsDefinition) -> None:
    """Raise an error if an asset is not a URL list."""
    require_asset(asset, "url_list")
    if URL_LIST not in asset.metadata_by_key.get(asset.key, {}):
        raise ValueError(
            f"Asset {asset.key.to_user_string()} is not a URL list. Pass an asset built by "
            "build_url_list_asset."
        )


def name_of_list(asset: dg.AssetsDefinition) -> str:
    """Return the URL list's name from the asset's metadata."""
    metadata = asset.metadata_by_key[asset.key]
    entry = metadata[URL_LIST if URL_LIST in metadata else LIST_NAME]
    return str(getattr(entry, "value", entry))


def _config_schema(max_removed_percent: float) -> dict[str, Any]:
    return {
        _MAX_REMOVED: dg.Field(
            float,
            default_value=float(max_removed_percent),
            is_required=False,
            description="Maximum percentage of the list's URLs that this run can remove. Set to "
            "100 to allow the removal of all URLs that are not in the table.",
        ),
    }


def _check_percent(percent: float) -> None:
    try:
        require_percent(_MAX_REMOVED, percent)
    except ValueError as error:
        raise _failure(f"{error}.") from None


class _Table:
    """The user's table and the distinct URLs to send to Octogen."""

    def __init__(self, frame: pl.DataFrame, urls: Sequence[str]) -> None:
        self.frame = frame
        self.urls = urls

    @classmethod
    def of(cls, frame: pl.DataFrame, asset: dg.AssetKey) -> "_Table":
        """Check the table's columns, and determine the URLs to send."""
        table = f"table {asset.to_user_string()}"
        for name in _REQUIRED:
            if name not in frame.columns:
                raise _failure(
                    f"The {table} does not have the column {name!r}. A URL list requires the "
                    "columns url and sku (your SKU). The table's columns are: "
                    f"{', '.join(frame.columns) or 'none'}."
                )
        for name in ADDED_COLUMNS:
            if name in frame.columns:
                raise _failure(
                    f"The {table} has a column {name!r}, but the URL list adds a column with this "
                    "name. Rename the column in the table."
                )
        if frame.schema["url"] not in (pl.String, pl.Null):
            raise _failure(
                f"The {table} cannot be used, because its column 'url' has the type "
                f"{type_name(frame.schema['url'])}. Cast the column to strings."
            )
        urls = _stripped_urls(frame).unique(maintain_order=True).drop_nulls().to_list()
        return cls(frame, [url for url in urls if _rejection(url) is None])

    def with_answers(self, sync: UrlListSync) -> pl.DataFrame:
        """Add the columns in `ADDED_COLUMNS` to the table."""

        def any_rejection(url: str | None) -> Rejection | None:
            if (before := _rejection(url)) or url is None:
                return before
            return sync.rejected.get(url)

        urls = _stripped_urls(self.frame).to_list()
        found = [any_rejection(url) for url in urls]
        normalized = [
            None if each else sync.normalized[url] for url, each in zip(urls, found, strict=True)
        ]
        columns = (
            normalized,
            [each.code if each else None for each in found],
            [each.message if each else None for each in found],
        )
        added = [
            pl.Series(name, values, dtype=pl.String)
            for name, values in zip(ADDED_COLUMNS, columns, strict=True)
        ]
        return self.frame.with_columns(added)


def _stripped_urls(frame: pl.DataFrame) -> pl.Series:
    """Strip whitespace around the URLs, because Octogen might strip it in its responses."""
    stripped: pl.Series = frame["url"].cast(pl.String).str.strip_chars()
    return stripped


def _rejection(url: str | None) -> Rejection | None:
    """Return the reason why a URL cannot be sent to Octogen, or None if it can be sent."""
    if not url:
        return Rejection("missing_url", "The row has no URL.")
    if len(url) > MAX_URL_CHARACTERS:
        return Rejection(
            "too_long",
            f"The URL has {len(url):,} characters; at most {MAX_URL_CHARACTERS:,} are allowed.",
        )
    return None


class _ListRun:
    def __init__(
        self,
        context: dg.AssetExecutionContext,
        client: BlockingClient,
        list_name: str,
        table: _Table,
        max_removed_percent: float,
    ) -> None:
        self._log = context.log
        self._client = client
        self._name = list_name
        self._table = table
        self._max_removed_percent = max_removed_percent

    def synchronize(self, provisioning_timeout: float) -> dg.MaterializeResult[pl.DataFrame]:
        """Synchronize the list, and return the table with the columns in `ADDED_COLUMNS`."""
        found = find_url_list(self._client, self._name)
        url_list = found or create_url_list(self._client, self._name)
        if found is None:
            self._log.info(f"Created {_subject(url_list)}.")
        if not self._table.urls:
            self._warn_about_empty_table(url_list)
        sync = UrlListSync(self._client, url_list, self._table.urls)
        with _full_or_deleted_fails(sync):
            sync.synchronize(partial(self._check_removal, url_list))
            url_list = self._wait_until_active(url_list, provisioning_timeout)
        if url_list.status == DELETE_PENDING:
            raise _deleted(url_list)
        value = self._table.with_answers(sync)
        return dg.MaterializeResult(value=value, metadata=self._metadata(url_list, sync, value))

    def _check_removal(self, url_list: CoverageUrlList, removed: int, total: int) -> None:
        if removed > self._max_removed_percent * total / 100:
            raise _failure(
                f"{_subject(url_list)} was not changed, because {removed:,} of its {total:,} URLs "
                f"are not in the table. A run can remove at most {self._max_removed_percent:g}% "
                f"({_MAX_REMOVED}). If the table is correct, set `{_MAX_REMOVED}: 100` in the "
                "launchpad for a single run."
            )

    def _warn_about_empty_table(self, url_list: CoverageUrlList) -> None:
        self._log.warning(
            f"The table has no URLs, so no URLs are removed from {_subject(url_list)}. The list "
            f"contains {count(url_list.url_count, 'URL')}. Delete the list if you no longer "
            "need it."
        )

    def _wait_until_active(self, url_list: CoverageUrlList, seconds: float) -> CoverageUrlList:
        ends_at, pause = time.monotonic() + seconds, 1.0
        while url_list.status == PROVISIONING:
            url_list = self._client.get_coverage_url_list(url_list.url_list_id)
            if url_list.status != PROVISIONING:
                break
            left = ends_at - time.monotonic()
            if left <= 0:
                self._log.warning(
                    f"{_subject(url_list)} still has the status {PROVISIONING} after {seconds:g} "
                    "seconds. The list already contains all URLs. Octogen exports the list once "
                    "its status is active."
                )
                break
            wait_interruptibly(Future(), min(pause, left))
            pause = min(2 * pause, _MAX_POLL_SECONDS)
        return url_list

    def _metadata(
        self, url_list: CoverageUrlList, sync: UrlListSync, value: pl.DataFrame
    ) -> Metadata:
        rejected = value.filter(pl.col("rejected_code").is_not_null())
        wanted, removed = sync.wanted(), sorted(sync.removed)
        text = f"**{count(len(wanted), 'URL')}** in {self._name}"
        if not self._table.urls:
            text = f"**No URLs** in the table; {url_list.url_count:,} kept in {self._name}"
        for number, action in (
            (len(sync.added), "added"),
            (len(removed), "removed"),
            (len(rejected), "rejected"),
        ):
            text += f", {number:,} {action}" if number else ""
        if len(rejected):
            codes = Counter(rejected["rejected_code"].to_list())
            reasons = ", ".join(f"{printable(code)} {each:,}" for code, each in codes.items())
            self._log.warning(f"{_rejected_text(len(rejected))}: {reasons}.")
        columns = [
            dg.TableColumn(name, type_name(dtype), description=ADDED_COLUMNS.get(name))
            for name, dtype in value.schema.items()
        ]
        shown = rejected.select(*_REQUIRED, "rejected_code", "rejected_message")
        return {
            "octogen/summary": dg.MetadataValue.md(text),
            LIST_ID: url_list.url_list_id,
            LIST_NAME: url_list.name,
            "octogen/status": url_list.status,
            "octogen/urls": len(wanted),
            "octogen/added": len(sync.added),
            "octogen/removed": len(removed),
            REJECTED: len(rejected),
            **_preview("removed_urls", {"normalized_url": removed}),
            **_preview("rejected_urls", shown.head(_MAX_SHOWN).to_dict(as_series=False)),
            COLUMN_SCHEMA: dg.TableSchema(columns),
        }


@contextmanager
def _full_or_deleted_fails(sync: UrlListSync) -> Iterator[None]:
    """Fail without retries if the list is full or was deleted."""
    try:
        yield
    except OctogenUrlListCapacityError as error:
        raise _failure(
            f"{_subject(sync.url_list)} is full, so the table was only partly synchronized "
            f"({count(len(sync.removed), 'URL')} removed, {count(len(sync.added), 'URL')} added). "
            f"A list can contain at most {MAX_LIST_URLS:,} distinct URLs. Stop other programs that "
            "write to the list, or split the table into several lists, then run the asset again."
        ) from error
    except OctogenUrlListError as error:
        if error.code not in _DELETED:
            raise
        raise _deleted(sync.url_list) from error


def _deleted(url_list: CoverageUrlList) -> dg.Failure:
    return _failure(
        f"{_subject(url_list)} was deleted during this run. Run the asset again to create a new "
        "list with the same name."
    )


def _subject(url_list: CoverageUrlList) -> str:
    return f"URL list {url_list.name!r} ({url_list.url_list_id})"


def _rejected_text(rows: int) -> str:
    return f"{count(rows, 'row')} in the table {'was' if rows == 1 else 'were'} rejected"


def _failure(text: str) -> dg.Failure:
    return dg.Failure(text, allow_retries=False)


def _preview(name: str, columns: Mapping[str, Sequence[Any]]) -> Metadata:
    """Return metadata with a preview table, or an empty dict if there are no rows."""
    frame = pl.DataFrame({each: values[:_MAX_SHOWN] for each, values in columns.items()})
    if frame.is_empty():
        return {}
    return {f"octogen/{name}": dg.MetadataValue.md(inline_table(frame))}
