"""The builders of a URL list that is kept equal to a table of addresses, and of its check."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
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
    find_url_list,
    make_url_list,
)
from octogen_dagster.validation import require_percent

URL_LIST = "octogen/url_list"
"""The metadata of the definition of an asset that is a URL list: the list's name."""
LIST_ID, LIST_NAME = "octogen/url_list_id", "octogen/url_list_name"
"""The metadata of materializations of a list, and of what is made from it: which list it is."""
REJECTED, REJECTED_URLS = "octogen/rejected", "octogen/rejected_urls"
"""The metadata of a materialization: the number of rejected rows, and a table of the first."""
ACCEPTED_CHECK = "accepted"
ADDED_COLUMNS: Mapping[str, str] = {
    "normalized_url": "The address as Octogen normalizes it, by which it knows if two are the "
    "same; null if it was rejected.",
    "rejected_code": "Why the address is not in the list, such as `invalid_url`; null if it is.",
    "rejected_message": "The same as a sentence.",
}
"""The columns that the asset adds to the table, with their descriptions."""

_NEEDED = ("url", "sku")
_MAX_REMOVED = "max_removed_percent"
_OF_CHECK = (REJECTED, REJECTED_URLS)
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
    """Build an asset: a coverage URL list at Octogen, which each run makes equal to a table.

    A run makes the list if it is not there, adds the addresses that it lacks and removes those that
    the table does not have. Which addresses are the same is Octogen's to say: `http://` or a
    campaign's parameters make no difference. A run that was killed is mended by the next one. None
    of the requests is charged.

    The value is the table with three more columns: `normalized_url`, and for an address that is not
    in the list `rejected_code` and `rejected_message`. A row without an address (`missing_url`) or
    with one of more than 2,048 characters (`too_long`) is rejected before a request; `invalid_url`
    is Octogen's word. `build_url_list_checks` warns of them.

    The metadata have `octogen/url_list_id`, `octogen/url_list_name`, `octogen/status` and the
    numbers `octogen/urls` (different ones in the list), `octogen/added`, `octogen/removed` and
    `octogen/rejected` (rows), with tables of the first that were removed and rejected.

    Octogen prepares a new list for about a minute, in which its status is `provisioning`. A run
    waits for that at its end. If it lasts longer, the run succeeds all the same, with a warning:
    the list has its addresses, and is exported once it is active.

    In the run configuration `max_removed_percent` can be changed for one run.

    Args:
        name: The asset's name or `dagster.AssetSpec`.
        urls: An asset, or its key, that is loaded as a `polars.DataFrame`, with the columns `url`
            (a competitor's page) and `sku` (the own article, of which several rows may have pages),
            and any others, which are kept. It has up to 100,000 addresses that differ for Octogen.
        list_name: The list's name, of at most 80 characters; by default the asset's. An
            organisation has up to five lists.
        max_removed_percent: The most percent of the list that a run may remove. A run that
            would remove more fails before it changes anything. A table without any address removes
            nothing, whatever this is.
        provisioning_timeout: Seconds to wait for a new list to become active.
        resource_key: The key of the `OctogenResource`.
        asset_arguments: Any other argument of `@dagster.asset`. With
            `automation_condition=octogen_dagster.follow_upstream()` the list follows the table. The
            default `retry_policy` is that of `build_products_asset`.

    Raises:
        ValueError: The list's name is empty or too long, `max_removed_percent` is not from 0 to
            100, or the asset is to have partitions, which a list does not have.
    """
    if not isinstance(urls, dg.AssetsDefinition | dg.AssetKey):
        raise TypeError(f"urls must be an asset or its dagster.AssetKey, not {urls!r}.")
    table_key = urls if isinstance(urls, dg.AssetKey) else urls.key
    require_percent(_MAX_REMOVED, max_removed_percent)
    given = asset_arguments_of(name, asset_arguments)
    if given.get("partitions_def") is not None:
        raise ValueError(
            f"Asset {given['name']!r} has no partitions: a list has all addresses of its table. "
            "Build an asset for each list, and leave partitions_def out."
        )
    list_name = checked_name(given["name"] if list_name is None else list_name, "list_name")

    @snapshot_asset(
        {
            "ins": {"urls": dg.AssetIn(table_key)},
            "config_schema": _config_schema(max_removed_percent),
            "metadata": {URL_LIST: list_name},
            "description": (
                f"The addresses of {table_key.to_user_string()} as Octogen's URL list "
                f"{list_name!r}. A row is an address of an article, with the reason if it is not "
                "in the list."
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
            brought = _ListRun(run.context, client, list_name, table, config[_MAX_REMOVED])
            return brought.bring(provisioning_timeout)

    return url_list


def build_url_list_checks(
    url_list: dg.AssetsDefinition, *, severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.WARN
) -> list[dg.AssetChecksDefinition]:
    """Build the check `accepted` of a URL list: no row of its table was rejected.

    A failed check has a table of the first rejected rows.

    Args:
        url_list: An asset of `build_url_list_asset`.
        severity: The severity of a failed check.

    Returns:
        A check for `dagster.Definitions(asset_checks=...)`.

    Raises:
        ValueError: The asset is not of `build_url_list_asset`.
    """
    require_url_list(url_list)

    @dg.asset_check(
        asset=url_list.key,
        name=ACCEPTED_CHECK,
        description="Octogen took the address of each row of the table.",
    )
    def accepted(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        records = context.instance.fetch_materializations(url_list.key, limit=1).records
        event = records[0].asset_materialization if records else None
        if event is None or REJECTED not in event.metadata:  # or a person reported it
            text = "No run has brought the list to its table yet."
            return dg.AssetCheckResult(passed=False, severity=severity, description=text)
        rejected = int(str(event.metadata[REJECTED].value))
        text = "Each row's address is in the list."
        if rejected:
            text = _rejected_text(rejected)
            text += ". Correct the addresses in the table, or leave the rows out."
        shown = {each: event.metadata[each] for each in _OF_CHECK if each in event.metadata}
        return dg.AssetCheckResult(
            passed=not rejected, severity=severity, description=text, metadata=shown
        )

    return [accepted]


def require_url_list(asset: dg.AssetsDefinition) -> None:
    """Refuse an asset that is no URL list."""
    require_asset(asset, "url_list")
    if URL_LIST not in asset.metadata_by_key.get(asset.key, {}):
        raise ValueError(
            f"{asset.key.to_user_string()} is not an asset of build_url_list_asset. Give the URL "
            "list."
        )


def name_of_list(asset: dg.AssetsDefinition) -> str:
    """The name of the list that an asset is, or is made from."""
    metadata = asset.metadata_by_key[asset.key]
    entry = metadata[URL_LIST if URL_LIST in metadata else LIST_NAME]
    return str(getattr(entry, "value", entry))


def _config_schema(max_removed_percent: float) -> dict[str, Any]:
    return {
        _MAX_REMOVED: dg.Field(
            float,
            default_value=float(max_removed_percent),
            is_required=False,
            description="The most percent of the list that this run may remove; 100 removes all "
            "that the table does not have.",
        ),
    }


def _check_percent(percent: float) -> None:
    """Refuse what the run configuration has, if it is no percent."""
    try:
        require_percent(_MAX_REMOVED, percent)
    except ValueError as error:
        raise _failure(f"{error}.") from None


class _Table:
    """The user's table: its different addresses in their order, and those that are not sent."""

    def __init__(self, frame: pl.DataFrame, urls: Sequence[str]) -> None:
        self.frame = frame
        self.urls = urls

    @classmethod
    def of(cls, frame: pl.DataFrame, asset: dg.AssetKey) -> "_Table":
        """Check a table as far as that needs no request."""
        subject = f"The table {asset.to_user_string()}"
        for name in _NEEDED:
            if name not in frame.columns:
                raise _failure(
                    f"{subject} has no column {name!r}. A URL list needs url, the address, and "
                    f"sku, the own article. It has {', '.join(frame.columns) or 'none'}."
                )
        for name in ADDED_COLUMNS:
            if name in frame.columns:
                raise _failure(
                    f"{subject} has a column {name!r}, which the URL list adds. Rename it."
                )
        if frame.schema["url"] not in (pl.String, pl.Null):
            raise _failure(
                f"{subject} has urls of the type {type_name(frame.schema['url'])}. They must be "
                "texts."
            )
        urls = _addresses(frame).unique(maintain_order=True).drop_nulls().to_list()
        return cls(frame, [url for url in urls if _refused(url) is None])

    def with_answers(self, sync: UrlListSync) -> pl.DataFrame:
        """Return the table with what became of each address."""

        def rejection(url: str | None) -> Rejection | None:
            if (refused := _refused(url)) or url is None:
                return refused
            return sync.rejected.get(url)

        urls = _addresses(self.frame).to_list()
        found = [rejection(url) for url in urls]
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


def _addresses(frame: pl.DataFrame) -> pl.Series:
    """The addresses as they are sent: without blanks around them, as an answer may name them."""
    stripped: pl.Series = frame["url"].cast(pl.String).str.strip_chars()
    return stripped


def _refused(url: str | None) -> Rejection | None:
    """Why an address is not sent; None if it is."""
    if not url:
        return Rejection("missing_url", "The row has no address.")
    if len(url) > MAX_URL_CHARACTERS:
        return Rejection(
            "too_long",
            f"The address has {len(url):,} characters, and Octogen takes {MAX_URL_CHARACTERS:,}.",
        )
    return None


class _ListRun:
    """A run that brings a list to a table."""

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

    def bring(self, provisioning_timeout: float) -> dg.MaterializeResult[pl.DataFrame]:
        """Make the list equal to the table, and return the table with what became of it."""
        found = find_url_list(self._client, self._name)
        url_list = found or make_url_list(self._client, self._name)
        if found is None:
            self._log.info(f"{_subject(url_list)} was made.")
        if not self._table.urls:
            self._warn_of_no_addresses(url_list)
        sync = UrlListSync(self._client, url_list, self._table.urls)
        with _refusals_fail(sync):
            sync.bring(lambda removed, of: self._check_removal(url_list, removed, of))
            url_list = self._wait_until_active(url_list, provisioning_timeout)
        if url_list.status == DELETE_PENDING:
            raise _deleted(url_list)
        value = self._table.with_answers(sync)
        return dg.MaterializeResult(value=value, metadata=self._metadata(url_list, sync, value))

    def _check_removal(self, url_list: CoverageUrlList, removed: int, of: int) -> None:
        if removed > self._max_removed_percent * of / 100:
            raise _failure(
                f"{_subject(url_list)} was not changed: {removed:,} of its {of:,} addresses are "
                f"not in the table, and {_MAX_REMOVED} is {self._max_removed_percent:g}. If the "
                f"table is right, accept it for a run with `{_MAX_REMOVED}: 100` in the launchpad."
            )

    def _warn_of_no_addresses(self, url_list: CoverageUrlList) -> None:
        self._log.warning(
            f"The table has no address, so nothing is removed from {_subject(url_list)}, which has "
            f"{count(url_list.url_count, 'address', 'addresses')}. Delete the list if it is not "
            "needed any more."
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
                    f"{_subject(url_list)} is still {PROVISIONING} after {seconds:g} s. It has its "
                    "addresses, and Octogen exports it once it is active."
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
        text = f"**{count(len(wanted), 'address', 'addresses')}** in {self._name}"
        if not self._table.urls:
            text = f"**No address** in the table; {url_list.url_count:,} stay in {self._name}"
        for number, what in (
            (len(sync.added), "added"),
            (len(removed), "removed"),
            (len(rejected), "rejected"),
        ):
            text += f", {number:,} {what}" if number else ""
        if len(rejected):
            codes = Counter(rejected["rejected_code"].to_list())
            reasons = ", ".join(f"{printable(code)} {each:,}" for code, each in codes.items())
            self._log.warning(f"{_rejected_text(len(rejected))}: {reasons}.")
        columns = [
            dg.TableColumn(name, type_name(dtype), description=ADDED_COLUMNS.get(name))
            for name, dtype in value.schema.items()
        ]
        shown = rejected.select(*_NEEDED, "rejected_code", "rejected_message")
        return {
            "octogen/summary": dg.MetadataValue.md(text),
            LIST_ID: url_list.url_list_id,
            LIST_NAME: url_list.name,
            "octogen/status": url_list.status,
            "octogen/urls": len(wanted),
            "octogen/added": len(sync.added),
            "octogen/removed": len(removed),
            REJECTED: len(rejected),
            **_table_of("removed_urls", {"normalized_url": removed}),
            **_table_of("rejected_urls", shown.head(_MAX_SHOWN).to_dict(as_series=False)),
            COLUMN_SCHEMA: dg.TableSchema(columns),
        }


@contextmanager
def _refusals_fail(sync: UrlListSync) -> Iterator[None]:
    """Fail without a retry if the list is full or deleted: its owner has to decide."""
    try:
        yield
    except OctogenUrlListCapacityError as error:
        raise _failure(
            f"{_subject(sync.url_list)} is full, and was brought to a part of its table: "
            f"{len(sync.removed):,} removed, {len(sync.added):,} added. A list has at most "
            f"{MAX_LIST_URLS:,} different addresses. Look for another run or program that writes "
            "to the list, or split the table into several lists, then run this one again."
        ) from error
    except OctogenUrlListError as error:
        if error.code not in _DELETED:
            raise
        raise _deleted(sync.url_list) from error


def _deleted(url_list: CoverageUrlList) -> dg.Failure:
    return _failure(
        f"{_subject(url_list)} was deleted while this run brought it to the table. Run it again to "
        "make a new list of the same name."
    )


def _subject(url_list: CoverageUrlList) -> str:
    return f"URL list {url_list.name!r} ({url_list.url_list_id})"


def _rejected_text(rows: int) -> str:
    return f"{count(rows, 'row')} of the table {'was' if rows == 1 else 'were'} rejected"


def _failure(text: str) -> dg.Failure:
    return dg.Failure(text, allow_retries=False)


def _table_of(name: str, columns: Mapping[str, Sequence[Any]]) -> Metadata:
    """A table of the first rows, if there are any."""
    frame = pl.DataFrame({each: values[:_MAX_SHOWN] for each, values in columns.items()})
    if frame.is_empty():
        return {}
    return {f"octogen/{name}": dg.MetadataValue.md(inline_table(frame))}
