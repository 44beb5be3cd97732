from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from octogen_dagster.api.catalog_sources import (
    CatalogSource,
    GrantedCatalogs,
    NamedCatalogs,
    ShopCatalogs,
)
from octogen_dagster.doctor.octogen_api import check_octogen
from octogen_dagster.doctor.runner import run_checks
from octogen_dagster.snapshots.resource import OctogenResource
from tests.api.servers import KEY, RawServer, Received, http
from tests.api.shops import catalog_of_shop, shop, shops

ME = {
    "principal": "api_key",
    "key": {"id": "1", "prefix": None},
    "organization": {"id": "1", "name": "Acme", "slug": "acme", "type": "catalog_partner"},
    "quotas": {},
    "rateLimit": {"limit": 600, "remaining": 599, "resetAt": "2026-11-26T10:00:00Z"},
}
SHOPS = {"acme.example": shop("acme.example", catalog_of_shop("acme", 250))}


def today(me: Any = ME, status: int = 200) -> RawServer:
    """A service of today, which searches nothing."""

    def account(request: Received) -> list[bytes]:
        assert request.target == "/v1/me", "nothing is searched or looked up"
        return http(status, me)

    return shops(SHOPS, account)


def older(request: Received) -> Iterable[bytes]:
    """A service of the older contract, with two catalogs."""
    if request.target == "/v1/me":
        return http(404, {"detail": "Not Found"})
    assert request.target == "/v1/catalogs"
    listed = [{"catalog": key, "productCount": 500} for key in ("acme", "zen")]
    return http(200, listed, X_RateLimit_Limit="300", X_RateLimit_Remaining="299")


def diagnosed(server: RawServer, source: CatalogSource, **settings: Any) -> dict[str, str]:
    """Diagnose a service; the lines without their subject, by subject."""
    resource = OctogenResource(base_url=server.base_url, catalogs=source, **settings)
    found = run_checks({"Octogen": lambda: check_octogen(resource, None, 30)}, 60)
    assert not any(KEY in str(finding) for finding in found)
    return {each.subject: f"{each.status}: {each.message} {each.advice}".strip() for each in found}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", KEY)


def test_a_service_of_today_that_works() -> None:
    with today() as server:
        found = diagnosed(server, ShopCatalogs(["acme.example"]), budget_usd=50)
    assert found == {
        "Octogen host": f"ok: {server.base_url} (base_url of the resource).",
        "Octogen key": f"ok: {server.base_url} accepts the key (OCTOGEN_PLATFORM_API_KEY) of the "
        "organisation 'Acme' and speaks the current contract.",
        "Octogen catalogs": "ok: ShopCatalogs finds 1, with 250 products in all.",
        "Octogen rate limit": "ok: 600 requests a minute; the limit of the pool 'octogen' is not "
        "known without a Dagster instance. Keep it below a fifth of that: `dagster instance "
        "concurrency set octogen 8`.",
        "Octogen spending": "ok: the configured prices are $0.014 for a page of a search and "
        "$0.002 for a lookup; the budget of a run is $50.00, which is 3,571 pages.",
        "Octogen balance": "skipped: Octogen's API does not tell it: a search or lookup without "
        "credit is refused (402).",
    }


def test_a_service_of_the_older_contract() -> None:
    with RawServer(older) as server:
        found = diagnosed(server, GrantedCatalogs())
    assert found["Octogen key"].endswith("speaks the older contract (seed).")
    assert found["Octogen catalogs"] == "ok: GrantedCatalogs finds 2, with 1,000 products in all."
    assert found["Octogen rate limit"].startswith("ok: 300 requests a minute")
    assert found["Octogen spending"].endswith("no budget. budget_usd limits what a run spends.")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (
            ShopCatalogs(["acme.example", "gone.example"]),
            "warning: ShopCatalogs finds 1, with 250 products in all. Shop 'gone.example'",
        ),
        (ShopCatalogs(["gone.example"]), "failed: Shop 'gone.example'"),
        (GrantedCatalogs(), "warning: The list of catalogs does not exist at"),
        (NamedCatalogs(["acme"]), "ok: NamedCatalogs names 1; whether they exist is not checked."),
    ],
    ids=str,
)
def test_sources_of_catalogs(source: CatalogSource, found: str) -> None:
    with today() as server:
        assert diagnosed(server, source)["Octogen catalogs"].startswith(found)


def test_a_source_without_catalogs_is_a_warning() -> None:
    with RawServer(lambda request: http(200, ME if "me" in request.target else [])) as server:
        found = diagnosed(server, GrantedCatalogs())["Octogen catalogs"]
    assert found.startswith("warning: GrantedCatalogs finds 0,")
    assert found.endswith("Ask Octogen for access to catalogs.")


def test_the_deprecated_variable_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OCTOGEN_PLATFORM_API_KEY")
    monkeypatch.setenv("OCTO_API_KEY", KEY)
    with today() as server:
        found = diagnosed(server, NamedCatalogs(["acme"]))["Octogen key"]
    assert found.startswith("warning:")
    assert found.endswith("OCTO_API_KEY: set OCTOGEN_PLATFORM_API_KEY instead.")


def test_the_key_of_the_resource_is_told_from_that_of_the_environment() -> None:
    with today() as server:
        found = diagnosed(server, NamedCatalogs(["acme"]), api_key=KEY)["Octogen key"]
    assert "accepts the key (api_key of the resource)" in found


@pytest.mark.parametrize(
    ("status", "detail", "said"),
    [
        (401, "Invalid API key", "401"),
        (402, {"code": "insufficient_credit", "top_up_url": "https://octogen.example/pay"}, "/pay"),
        (403, "api_key_org_type_forbidden", "403"),
    ],
)
def test_a_key_that_is_refused(status: int, detail: Any, said: str) -> None:
    with today({"detail": detail}, status) as server:
        found = diagnosed(server, NamedCatalogs(["acme"]))
    assert found.keys() == {"Octogen host", "Octogen"}
    assert found["Octogen"].startswith("failed: The account of the API key")
    assert said in found["Octogen"]


def test_a_key_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OCTOGEN_PLATFORM_API_KEY")
    with today() as server:
        found = diagnosed(server, NamedCatalogs(["acme"]))
    assert found["Octogen"].startswith("failed: No Octogen API key: pass api_key or set")
    assert not server.received
