"""The checks of Octogen's REST API: the key, the catalogs, the rate limit and the prices."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.catalog_sources import GrantedCatalogs, NamedCatalogs
from octogen_dagster.api.credentials import API_KEY_VARIABLES, BASE_URL_VARIABLE, address_origin
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.spending import usd
from octogen_dagster.doctor.findings import Check, Finding
from octogen_dagster.doctor.rate_limit import compare_limits
from octogen_dagster.errors import OctogenError, OctogenNotFoundError

if TYPE_CHECKING:
    import dagster as dg

    from octogen_dagster.api.catalog_sources import CatalogService
    from octogen_dagster.api.models import MeResponse
    from octogen_dagster.api.spending import Spending
    from octogen_dagster.snapshots.resource import OctogenResource

HOST, KEY, CATALOGS = "Octogen host", "Octogen key", "Octogen catalogs"
_DEPRECATED_VARIABLE = API_KEY_VARIABLES[1]


def check_octogen(
    octogen: OctogenResource, instance: dg.DagsterInstance | None, timeout: float
) -> Check:
    """Check the key, the catalogs and the limits, without a search or lookup.

    Args:
        octogen: The resource.
        instance: The Dagster instance that limits the pool of the assets; None if there is none.
        timeout: Seconds for each request with its retries.

    Raises:
        OctogenError: The key is missing or refused, or the service does not answer.
    """
    service = replace(octogen.service(), retry=RetryPolicy(attempts=2, deadline=timeout))
    origin = address_origin(octogen.base_url, "base_url", BASE_URL_VARIABLE, octogen.host)
    yield Finding(HOST, "ok", f"{service.base_url} ({origin}).")
    me = _fetch_me(service)
    yield _key_finding(octogen, service, me)
    yield _catalogs_finding(service)
    limit = me.rate_limit.limit if me and me.rate_limit else None
    yield compare_limits(limit or service.spending.requests_per_minute, instance)
    yield _spending_finding(service.spending)
    yield Finding(
        "Octogen balance",
        "skipped",
        "Octogen's API does not tell it: a search or lookup without credit is refused (402).",
    )


def _fetch_me(service: CatalogService) -> MeResponse | None:
    """Return whose key it is; None if a service of the older contract accepts the key.

    Raises:
        OctogenError: The key is refused, or the service does not answer.
    """
    with BlockingClient(service) as client:
        try:
            return client.get_me()
        except OctogenNotFoundError:
            client.list_catalog_states()
            return None


def _key_finding(
    octogen: OctogenResource, service: CatalogService, me: MeResponse | None
) -> Finding:
    origin = "api_key of the resource" if octogen.api_key else _variable()
    said = f"{service.base_url} accepts the key ({origin})"
    if me is None:
        said += " and speaks the older contract (seed)."
    else:
        organization = me.organization and me.organization.name
        of = f" of the organisation {organization!r}" if organization else ""
        said = f"{said}{of} and speaks the current contract."
    if origin == _DEPRECATED_VARIABLE:
        advice = f"Octogen has deprecated {origin}: set {API_KEY_VARIABLES[0]} instead."
        return Finding(KEY, "warning", said, advice)
    return Finding(KEY, "ok", said)


def _variable() -> str:
    """The environment variable that the key is read from."""
    return next(name for name in API_KEY_VARIABLES if os.environ.get(name, "").strip())


def _catalogs_finding(service: CatalogService) -> Finding:
    source = service.catalogs
    kind = type(source).__name__
    if isinstance(source, NamedCatalogs):
        return Finding(
            CATALOGS,
            "ok",
            f"NamedCatalogs names {len(source.keys)}; whether they exist is not checked.",
        )
    try:
        listed = service.fetch_catalogs()
    except OctogenNotFoundError as error:
        # Only what lists catalogs fails without a source; a search that names its catalogs works.
        is_default = isinstance(source, GrantedCatalogs)
        return Finding(CATALOGS, "warning" if is_default else "failed", str(error))
    except OctogenError as error:
        return Finding(CATALOGS, "failed", str(error))
    products = sum(state.product_count or 0 for state in listed.catalogs)
    said = f"{kind} finds {len(listed.catalogs):,}, with {products:,} products in all."
    if listed.warnings:
        return Finding(CATALOGS, "warning", said, " ".join(listed.warnings))
    if not listed.catalogs:
        return Finding(CATALOGS, "warning", said, "Ask Octogen for access to catalogs.")
    return Finding(CATALOGS, "ok", said)


def _spending_finding(spending: Spending) -> Finding:
    subject = "Octogen spending"
    page = spending.prices.search_page_usd
    prices = (
        f"the configured prices are {usd(page)} for a page of a search and "
        f"{usd(spending.prices.lookup_usd)} for a lookup"
    )
    if spending.budget_usd is None:
        return Finding(
            subject, "ok", f"{prices}; there is no budget.", "budget_usd limits what a run spends."
        )
    budget = f"the budget of a run is {usd(spending.budget_usd)}"
    pages = f", which is {int(spending.budget_usd / page):,} pages" if page else ""
    return Finding(subject, "ok", f"{prices}; {budget}{pages}.")
