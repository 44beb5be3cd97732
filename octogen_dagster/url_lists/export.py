"""The daily export of a URL list: whether there is one, where it is, and what its checks say."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from octogen_dagster.assets.definition import FRESH, Metadata, hours, permanent_errors_fail
from octogen_dagster.assets.ticks import DATA_VERSION_TAG
from octogen_dagster.bigquery.linked_datasets import link_dataset, waiting_for_grant
from octogen_dagster.bigquery.table_checks import EXPECTED_COLUMNS, NOT_EMPTY, age_of
from octogen_dagster.bigquery.tables import (
    CONSOLE,
    TABLE_NAME,
    TableName,
    console_url,
    last_materialization,
    reported_value,
)
from octogen_dagster.errors import OctogenUrlListNotFoundError
from octogen_dagster.printable import count
from octogen_dagster.sharing.autosubscribe import register_and_subscribe
from octogen_dagster.sharing.names import ListingName
from octogen_dagster.url_lists.list_asset import LIST_ID, LIST_NAME
from octogen_dagster.url_lists.matching import COVERED, NOT_COVERED, PENDING, REJECTED
from octogen_dagster.url_lists.sync import DELETE_PENDING

if TYPE_CHECKING:
    from octogen_dagster.api.url_lists import CoverageUrlList

COVERAGE_TABLE = "url_coverage_v1"
DATASET = "octogen/linked_dataset"
EXPORTED_AT = "octogen/exported_at"
NOT_EXPORTED = "Octogen has not exported the list yet"
NO_PRODUCTS_YET = f"**No products yet**: {NOT_EXPORTED}"

MATCHED = "matched"
_MIN_MATCHED_FRACTION = 0.9

Decorator = Callable[[Callable[..., Any]], dg.AssetsDefinition]
"""Makes an asset of its function."""

_OF_PRODUCTS = (TABLE_NAME, CONSOLE, "octogen/sample_query")
"""The metadata of a linked dataset that are of the view of products."""


@dataclass(frozen=True)
class ListExport:
    """The place of a list's export, and the limits within which it is read.

    The fields are the arguments of `build_url_coverage_asset`.
    """

    url_list: dg.AssetKey
    min_covered_fraction: float
    max_age: timedelta | None
    listing_project: str
    listing_location: str
    dataset_id: str | None
    control_plane: bool
    grant_waits: Sequence[float]
    max_bytes_billed: int | None
    dollars_per_tib: float
    resource_key: str
    bigquery_resource_key: str

    @property
    def resource_keys(self) -> set[str]:
        """The resources of the asset that subscribes."""
        keys = {self.resource_key, "analytics_hub", self.bigquery_resource_key}
        return keys | ({"octogen_control_plane"} if self.control_plane else set())

    def listing(self, exchange: str, listing: str) -> ListingName:
        """The name of a listing; an error if a part of it is malformed."""
        name = ListingName(self.listing_project, self.listing_location, exchange, listing)
        return ListingName.parse(str(name))

    def read_list(self, context: dg.AssetExecutionContext) -> "CoverageUrlList":
        """Ask the service for the list that the asset of the list made or found."""
        asset = self.url_list.to_user_string()
        list_id = reported_value(last_materialization(context, self.url_list), LIST_ID)
        if list_id is None:
            raise dg.Failure(
                f"{asset}: no URL list is known. Its last materialization says which one it is, as "
                f"{LIST_ID}, and there is none. Materialize {asset} first.",
                allow_retries=False,
            )
        octogen = getattr(context.resources, self.resource_key)
        with permanent_errors_fail():
            try:
                state: CoverageUrlList = octogen.get_coverage_url_list(str(list_id))
            except OctogenUrlListNotFoundError as error:
                raise error.with_message(
                    f"{asset}: URL list {list_id!r} is gone, or is not of the organisation of this "
                    f"key. Materialize {asset}, which makes the list anew if it is not there."
                ) from error
        if state.status == DELETE_PENDING:
            raise dg.Failure(
                f"URL list {state.name!r} ({state.url_list_id}) is being deleted, with its data. "
                f"Nothing was read. Materialize {asset}, which makes another list.",
                allow_retries=False,
            )
        return state

    def link(
        self, context: dg.AssetExecutionContext, state: "CoverageUrlList"
    ) -> tuple[TableName, Metadata]:
        """Subscribe to the listing of a list.

        Returns the view of its coverage, and the metadata of the linked dataset.
        """
        with waiting_for_grant(context, self.grant_waits):
            assert state.big_query is not None
            linked = link_dataset(
                context,
                self.listing(state.big_query.exchange_id, state.big_query.listing_id),
                self.dataset_id,
                with_octogen=register_and_subscribe if self.control_plane else None,
            )
        table = TableName.parse(f"{linked[DATASET]}.{COVERAGE_TABLE}")
        of_dataset = {name: entry for name, entry in linked.items() if name not in _OF_PRODUCTS}
        return table, {**of_dataset, CONSOLE: console_url(*table)}

    def check_specs(self, asset: dg.AssetKey) -> list[dg.AssetCheckSpec]:
        """The checks `covered` and, with a maximum age, `fresh`."""
        descriptions = {
            COVERED: f"At least {self.min_covered_fraction:.0%} of the exported addresses are "
            "covered."
        }
        if self.max_age is not None:
            descriptions[FRESH] = (
                f"The list was exported in the last {hours(self.max_age):g} hours."
            )
        return [
            dg.AssetCheckSpec(name, asset=asset, description=description)
            for name, description in descriptions.items()
        ]

    def check_results(
        self, state: "CoverageUrlList", covered: int, not_covered: int, exported_at: datetime | None
    ) -> Iterator[dg.AssetCheckResult]:
        """The results of the checks of `check_specs`."""
        exported = covered + not_covered
        fraction = covered / exported if exported else None
        description = f"{NOT_EXPORTED}." if exported_at is None else "No address was exported yet."
        if fraction is not None:
            description = (
                f"Octogen covers {covered:,} of "
                f"{count(exported, 'exported address', 'exported addresses')}; "
                f"{self.min_covered_fraction:.0%} are expected."
            )
        yield dg.AssetCheckResult(
            passed=fraction is None or fraction >= self.min_covered_fraction,
            check_name=COVERED,
            severity=dg.AssetCheckSeverity.WARN,
            description=description,
            metadata={} if fraction is None else {"octogen/covered_fraction": fraction},
        )
        if self.max_age is None:
            return
        # A list that is never exported is not fresh either.
        since = exported_at or state.created_at
        age = None if since is None else age_of(since)
        description = f"{NOT_EXPORTED}."
        if age is not None:
            event = "exported" if exported_at else "made"
            description = (
                f"The list was {event} {hours(age):g} hours ago"
                f"{'' if exported_at else ' and is not exported yet'}; {hours(self.max_age):g} are "
                "allowed."
            )
        yield dg.AssetCheckResult(
            passed=age is None or age <= self.max_age,
            check_name=FRESH,
            severity=dg.AssetCheckSeverity.WARN,
            description=description,
            metadata={} if age is None else {"octogen/age_hours": hours(age)},
        )


def last_exported_at(state: "CoverageUrlList") -> datetime | None:
    """When the service says that a list was exported; None if it has not been."""
    return None if state.big_query is None else state.big_query.last_exported_at


def version_of(exported_at: datetime) -> str:
    """The data version of what is read of an export."""
    return exported_at.isoformat()


def data_version(state: "CoverageUrlList") -> dg.DataVersion | None:
    """The data version of what is read of a list; None before its first export."""
    exported_at = last_exported_at(state)
    return None if exported_at is None else dg.DataVersion(version_of(exported_at))


def read_version(record: dg.EventLogRecord | None) -> dg.DataVersion | None:
    """The data version that a materialization of the coverage has."""
    event = record and record.asset_materialization
    version = event and (event.tags or {}).get(DATA_VERSION_TAG)
    return dg.DataVersion(version) if version else None


def of_export(record: dg.EventLogRecord | None) -> Metadata:
    """The time of the export that a materialization of the coverage has read, as metadata."""
    exported_at = reported_value(record, EXPORTED_AT)
    return {} if exported_at is None else {EXPORTED_AT: dg.MetadataValue.timestamp(exported_at)}


def matched_spec(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """The check `matched` of the products."""
    return dg.AssetCheckSpec(
        MATCHED,
        asset=asset,
        description=f"At least {_MIN_MATCHED_FRACTION:.0%} of the covered addresses have products.",
    )


def matched_result(fraction: float | None) -> dg.AssetCheckResult:
    """The result of the check `matched`, of the share of covered addresses that have a product."""
    description = "No address is covered."
    if fraction is not None:
        description = (
            f"{fraction:.0%} of the covered addresses have a product; {_MIN_MATCHED_FRACTION:.0%} "
            "are expected. Which product is of which address is found by their pages."
        )
    return dg.AssetCheckResult(
        passed=fraction is None or fraction >= _MIN_MATCHED_FRACTION,
        check_name=MATCHED,
        severity=dg.AssetCheckSeverity.WARN,
        description=description,
        metadata={} if fraction is None else {"octogen/matched_fraction": fraction},
    )


def nothing_read(*, matches: bool = False) -> Iterator[dg.AssetCheckResult]:
    """The results of the checks of the products of a list that was not exported."""
    for name in (NOT_EMPTY, EXPECTED_COLUMNS, *([MATCHED] if matches else [])):
        yield dg.AssetCheckResult(
            passed=True, check_name=name, description=f"{NOT_EXPORTED}: nothing was read."
        )


def list_metadata(state: "CoverageUrlList") -> Metadata:
    return {
        LIST_ID: state.url_list_id,
        LIST_NAME: state.name,
        "octogen/status": state.status,
    }


def coverage_sentence(counts: Mapping[str, int], exported_at: datetime | None) -> str:
    """The sentence about a coverage, of the number of addresses by status."""
    total = count(sum(counts.values()), "address", "addresses")
    if exported_at is None:
        return f"**No coverage yet**: {NOT_EXPORTED}"
    parts = [
        f"{counts[status]:,} {words}"
        for status, words in (
            (NOT_COVERED, "not covered"),
            (PENDING, "pending"),
            (REJECTED, "rejected"),
        )
        if counts.get(status)
    ]
    text = ", ".join([f"**{counts[COVERED]:,} of {total} covered**", *parts])
    return f"{text}; exported {exported_at:%Y-%m-%d %H:%M} UTC"
