"""Octogen's control plane in memory, with what it shares with a subscriber."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec.structs import asdict, replace

from octogen_dagster.control_plane.tools import Cell, SharedListing, Subscriber
from octogen_dagster.errors import OctogenConnectionError
from octogen_dagster.sharing.resource_names import sample_query

PROJECT = "my-project"
PRINCIPAL = "serviceAccount:reader@my-project.iam.gserviceaccount.com"
EXCHANGE = "projects/octo/locations/us/dataExchanges/catalogs"
ME = Subscriber("s-1", PROJECT, PRINCIPAL, "enabled")
OTHERS = [
    Subscriber("s-8", "theirs", PRINCIPAL, "enabled"),
    Subscriber("s-9", PROJECT, "user:x@y.z", "enabled"),
]


def listing(catalog: str, **parts: str | None) -> SharedListing:
    query = sample_query(PROJECT, f"octogen_{catalog}")
    whole = SharedListing(
        catalog, f"{EXCHANGE}/listings/{catalog}", f"octogen_{catalog}", "us", query
    )
    return replace(whole, **parts)


def cell(
    catalog: str, status: str | None = "awaiting_subscription", reason: str | None = None
) -> Cell:
    return cell_of("s-1", listing(catalog), status, reason)


def cell_of(
    subscriber_id: str | None,
    listing: SharedListing,
    status: str | None,
    reason_code: str | None = None,
    share_schema: str | None = None,
    schema_version: str | None = None,
) -> Cell:
    return Cell(
        **asdict(listing),
        subscriber_id=subscriber_id,
        status=status,
        reason_code=reason_code,
        share_schema=share_schema,
        schema_version=schema_version,
    )


@dataclass
class Octogen:
    """A control plane in memory; refreshing makes a catalog active."""

    listed: list[SharedListing] = field(default_factory=list)
    registered: list[Subscriber] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    after_registration: list[Cell] = field(default_factory=list)
    refresh_fails: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    schemas: list[tuple[str | None, str | None]] = field(default_factory=list)

    def listings(self, catalogs: Sequence[str] = ()) -> list[SharedListing]:
        self.calls.append("listings")
        return [each for each in self.listed if not catalogs or each.catalog_key in catalogs]

    def subscribers(self) -> tuple[list[Subscriber], list[Cell]]:
        self.calls.append("subscribers")
        return self.registered, self.cells

    def register(self, project: str, principal: str) -> tuple[Subscriber, list[Cell]]:
        self.calls.append(f"register {project} {principal}")
        return ME, self.after_registration

    def refresh_status(
        self,
        catalog_key: str,
        principal: str,
        *,
        share_schema: str | None = None,
        schema_version: str | None = None,
    ) -> Cell:
        self.calls.append(f"refresh {catalog_key} {principal}")
        self.schemas.append((share_schema, schema_version))
        if catalog_key in self.refresh_fails:
            raise OctogenConnectionError("Octogen did not answer.")
        return cell(catalog_key, "active")


def shared(*catalogs: str, **statuses: str) -> Octogen:
    """Catalogs that are shared with us, whose cells wait for a subscription or have a status."""
    cells = [cell(catalog) for catalog in catalogs]
    cells += [cell(catalog, status) for catalog, status in statuses.items()]
    return Octogen(list(cells), [*OTHERS, ME], cells)
