"""The questions about what Octogen shares over BigQuery, in the order in which they are asked.

Octogen's MCP is asked for the listings, and Google about them in the user's own project. Nothing is
subscribed to, and no query is run but by a dry run, which is free.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from octogen_dagster.bigquery.linked_products import build_count
from octogen_dagster.bigquery.linked_view import build_select
from octogen_dagster.bigquery.queries import (
    DOLLARS_PER_TIB,
    MAX_BYTES_BILLED,
    REQUEST_TIMEOUT,
    dry_run,
)
from octogen_dagster.bigquery.resources import AnalyticsHubResource, OctogenControlPlaneResource
from octogen_dagster.bigquery.table_checks import PRODUCT_COLUMNS
from octogen_dagster.bigquery.tables import (
    EXPORTED_AT,
    TableName,
    find_modified_column,
    open_client,
)
from octogen_dagster.doctor.verify.answers import (
    GOOGLE_REFUSED,
    QUESTION_TIMEOUT,
    Answer,
    NotAskedError,
    Question,
    Seen,
    ask,
)
from octogen_dagster.errors import (
    OctogenBigQueryError,
    OctogenBigQueryInputError,
    OctogenBigQueryUnavailableError,
    OctogenError,
)
from octogen_dagster.printable import usd
from octogen_dagster.sharing.google_errors import BIGQUERY, translate_google_errors
from octogen_dagster.sharing.hub import EMULATOR_VARIABLE
from octogen_dagster.sharing.names import TABLE, ListingName, plan_subscription
from octogen_dagster.sharing.subscribe import in_force

if TYPE_CHECKING:
    from google.cloud.bigquery import Client, Table

    from octogen_dagster.sharing.hub import AnalyticsHub

_QUERY_RESULT = "restrict_query_result"


class View(NamedTuple):
    """The view of a linked dataset, as BigQuery describes it."""

    listing: ListingName
    name: TableName
    table: Table


@dataclass
class Google:
    """The project that is asked, and what was read of it for more than one question.

    `told` are the locations of the listings, as Octogen names them. `unread` says why views of the
    project are not among `views`.
    """

    hub: AnalyticsHub
    client: Client | None
    told: dict[ListingName, str]
    views: list[View]
    unread: list[str]

    def require_views(self) -> list[View]:
        """Return the views that were read; raise `NotAskedError` if there is none."""
        if self.views:
            return self.views
        if self.unread:
            raise NotAskedError(GOOGLE_REFUSED, "; ".join(self.unread))
        if self.client is None:
            raise NotAskedError("Analytics Hub is a local server, so BigQuery is not asked.")
        raise NotAskedError(
            "the project is subscribed to none of the listings: materialize a linked dataset first."
        )


def ask_google(project: str | None) -> Iterator[Answer]:
    """Ask about the listings that Octogen shares, and their linked datasets in a project."""
    with contextlib.ExitStack() as stack:
        try:
            google = stack.enter_context(_opened(project))
        except Exception as error:
            failure = error

            def fail(_: object) -> Seen:
                raise failure

            for question in QUESTIONS:
                yield ask(replace(question, ask=fail), None)
        else:
            for question in QUESTIONS:
                yield ask(question, google)


@contextlib.contextmanager
def _opened(project: str | None) -> Iterator[Google]:
    if not project:
        raise NotAskedError("there is no project: set GOOGLE_CLOUD_PROJECT.")
    told = _shared_listings()
    locations = {listing.location.casefold(): listing.location for listing in told}
    is_local = EMULATOR_VARIABLE in os.environ and "BIGQUERY_EMULATOR_HOST" not in os.environ
    with contextlib.ExitStack() as stack:
        try:
            hub = stack.enter_context(AnalyticsHubResource(project=project).hub(QUESTION_TIMEOUT))
            subscriptions = [
                each
                for location in locations.values()
                for each in hub.list_subscriptions(project, location)
            ]
            google = Google(hub, None, told, [], [])
            if not is_local:
                from dagster_gcp import BigQueryResource

                client = stack.enter_context(open_client(BigQueryResource(project=project)))
                google.client = client
                for listing in told:
                    plan = plan_subscription(str(listing), project)
                    if found := in_force(subscriptions, plan):
                        dataset = found.project or project, found.dataset_id or plan.dataset_id
                        _read_view(google, client, listing, TableName(*dataset, TABLE))
        except OctogenBigQueryError as error:
            raise NotAskedError(GOOGLE_REFUSED, str(error)) from None
        yield google


def _shared_listings() -> dict[ListingName, str]:
    """Return the listings that Octogen shares with the organisation, with their locations."""
    try:
        # Whom Octogen shares with is no question.
        with OctogenControlPlaneResource(principal="").control_plane(QUESTION_TIMEOUT) as octogen:
            shared = octogen.listings()
        names = {ListingName.parse(each.listing_resource or ""): each.location for each in shared}
    except OctogenBigQueryInputError as error:
        raise NotAskedError(
            "Octogen's MCP names a listing in another form: please report it.", str(error)
        ) from None
    except OctogenError as error:
        raise NotAskedError(
            "Octogen's MCP does not name its listings: --details says why; "
            "`octogen-dagster login` logs in.",
            str(error),
        ) from None
    if not names:
        raise NotAskedError("Octogen shares no listing with your organisation.")
    return {name: location or name.location for name, location in names.items()}


def _read_view(google: Google, client: Client, listing: ListingName, name: TableName) -> None:
    try:
        with translate_google_errors(BIGQUERY, f"View {name}"):
            table = client.get_table(str(name), timeout=REQUEST_TIMEOUT)
    except OctogenBigQueryUnavailableError:
        raise
    except OctogenBigQueryError as error:
        google.unread.append(str(error))
    else:
        google.views.append(View(listing, name, table))


def _location(google: Google) -> Seen:
    wrong = [
        f"{listing} is said to be in {told}"
        for listing, told in google.told.items()
        if told.casefold() != listing.location.casefold()
    ]
    wrong += [
        f"{view.name} is in {view.table.location}"
        for view in google.views
        if (view.table.location or "").casefold() != view.listing.location.casefold()
    ]
    locations = ", ".join(sorted({listing.location.upper() for listing in google.told}))
    said = f"listings: {len(google.told):,}, in {locations}; linked views: {len(google.views):,}"
    elsewhere = f"elsewhere than said: {len(wrong):,}" if wrong else "all where they are said to be"
    return Seen(not wrong, f"{said}; {elsewhere}.", "; ".join(wrong))


def _restrictions(google: Google) -> Seen:
    restricted: dict[ListingName, dict[str, bool]] = {}
    refusals: list[str] = []
    for listing in google.told:
        try:
            restricted[listing] = google.hub.export_restrictions(listing)
        except OctogenBigQueryUnavailableError:
            raise
        except OctogenBigQueryError as error:
            refusals.append(str(error))
    if not restricted:
        raise NotAskedError("no listing may be read.", "; ".join(refusals))
    found = {name for each in restricted.values() for name in each}
    forbidding = [str(listing) for listing, each in restricted.items() if _QUERY_RESULT in each]
    number = sum(map(bool, restricted.values()))
    said = f"listings that restrict exports: {number:,} of {len(restricted):,}"
    if found:
        said += f" ({', '.join(sorted(found))})"
    if refusals:
        said += f"; not readable: {len(refusals):,}"
    return Seen(not forbidding, f"{said}.", "; ".join([*forbidding, *refusals]))


def _columns(google: Google) -> Seen:
    views, wrong = google.require_views(), []
    missing: set[str] = set()
    others: set[str] = set()
    for view in views:
        names = {field.name.casefold() for field in view.table.schema}
        lacking = [name for name in PRODUCT_COLUMNS if name not in names]
        missing.update(lacking)
        others |= names - set(PRODUCT_COLUMNS)
        try:
            _selects(view)
        except OctogenBigQueryInputError as error:
            wrong.append(str(error))
        else:
            wrong += [f"{view.name} lacks {', '.join(lacking)}"] if lacking else []
    known = len(PRODUCT_COLUMNS)
    said = f"{_views(google)}; columns besides the {known} documented: {len(others):,}"
    if missing:
        said += f"; missing: {', '.join(sorted(missing))}"
    if wrong:
        said += f"; views that cannot be read as they are: {len(wrong):,}"
    return Seen(not wrong, f"{said}.", "; ".join([*wrong, *google.unread]))


def _exported_at(google: Google) -> Seen:
    views = google.require_views()
    undated = [str(view.name) for view in views if _dated_by(view) is None]
    said = f"{_views(google)}; without dates in such a column: {len(undated):,}."
    return Seen(not undated, said, "; ".join(undated))


def _queries(google: Google) -> Seen:
    from google.api_core.exceptions import BadRequest

    views = google.require_views()
    assert google.client is not None
    sizes: list[int] = []
    wrong: list[str] = []
    for view in views:
        try:
            for sql in _selects(view):
                with translate_google_errors(BIGQUERY, f"A query of {view.name}"):
                    try:
                        size = dry_run(google.client, sql, REQUEST_TIMEOUT)
                    except BadRequest as error:
                        wrong.append(f"{view.name}: {error.message}")
                    else:
                        sizes.append(size)
                        if size > MAX_BYTES_BILLED:
                            wrong.append(f"{view.name}: {size:,} bytes")
        except OctogenBigQueryInputError as error:
            wrong.append(str(error))
    largest = max(sizes, default=0)
    dollars = usd(largest / 2**40 * DOLLARS_PER_TIB)
    said = (
        f"{_views(google)}; queries that may be run: {len(sizes):,}; the largest reads "
        f"{largest / 1e9:,.2f} GB, {dollars} by Google's list price"
    )
    if wrong:
        said += f"; refused or above the limit: {len(wrong):,}"
    return Seen(not wrong, f"{said}.", "; ".join(wrong))


def _selects(view: View) -> tuple[str, str]:
    """The queries of a linked snapshot and of linked products."""
    columns = view.table.schema
    return build_select(view.name, columns, None, None), build_count(view.name, _dated_by(view))


def _dated_by(view: View) -> str | None:
    return find_modified_column(view.table.schema, view.name, None, EXPORTED_AT)


def _views(google: Google) -> str:
    unread = f", not readable: {len(google.unread):,}" if google.unread else ""
    return f"views: {len(google.views):,}{unread}"


_PAGE = "docs/autosubscribe.md"
QUESTIONS: Sequence[Question[Any]] = (
    Question(
        "location of listings",
        "Octogen, the name of a listing and BigQuery agree on the listing's location.",
        f"`location` of linked datasets and of queries, {_PAGE}; please report it",
        _location,
    ),
    Question(
        "export restrictions",
        "No listing forbids that the result of a query is stored elsewhere.",
        f"linked snapshots, which Google then refuses; query the linked dataset, {_PAGE}",
        _restrictions,
    ),
    Question(
        "columns of views",
        f"The view {TABLE} has the documented columns, and each column is of a type that is read.",
        f"`columns` of linked products and linked snapshots, {_PAGE}",
        _columns,
    ),
    Question(
        "exported_at",
        f"The newest {EXPORTED_AT} of a view tells how old its rows are.",
        f"`modified_column` and `max_age` of linked products and linked snapshots, {_PAGE}",
        _exported_at,
    ),
    Question(
        "dry run of queries",
        f"BigQuery takes the queries, and each reads at most {MAX_BYTES_BILLED / 1e9:g} GB.",
        f"`max_bytes_billed` of linked products and linked snapshots, {_PAGE}",
        _queries,
    ),
)
