"""Where catalogs come from."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from octogen_dagster.api.catalog_sources import (
    CatalogService,
    CatalogSource,
    GrantedCatalogs,
    NamedCatalogs,
    ShopCatalogs,
)
from octogen_dagster.api.catalog_states import CatalogList, CatalogState
from octogen_dagster.api.client import OctogenClient
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.errors import (
    OctogenAuthenticationError,
    OctogenNotFoundError,
    OctogenServerError,
    OctogenTimeoutError,
)
from octogen_dagster.sandbox.server import Sandbox
from tests.api.clients import ONCE, Server
from tests.api.servers import KEY, RawServer, Received, hanging, http
from tests.api.shops import catalog_of_shop, not_covered, shop, shops

BOTH = ShopCatalogs(hosts=["acme.example", "zen.example"])
ACME = shop("acme.example", catalog_of_shop("acme"))
ZEN = shop("zen.example", catalog_of_shop("zen"))


def connection_to(server: Server, catalogs: CatalogSource, **retry: Any) -> CatalogService:
    return CatalogService(
        api_key=ApiKey(KEY),
        base_url=server.base_url,
        retry=replace(ONCE, **retry),
        catalogs=catalogs,
    )


def keys(listed: CatalogList) -> list[str]:
    return [state.catalog for state in listed.catalogs]


class TestGrantedCatalogs:
    def test_they_are_the_default_and_need_one_request(self, sandbox: Sandbox) -> None:
        connection = CatalogService(api_key=ApiKey(KEY), base_url=sandbox.base_url)
        listed = connection.fetch_catalogs()
        assert connection.catalogs == GrantedCatalogs()
        assert keys(listed) == ["northpeak", "strada"]
        assert all(state.last_indexed_at for state in listed.catalogs)
        assert [request.path for request in sandbox.requests] == ["/catalogs"]

    def test_a_service_without_a_list_says_which_sources_there_are(self) -> None:
        with (
            shops({}) as server,
            pytest.raises(
                OctogenNotFoundError,
                match=r"^The list of catalogs does not exist at http://127.* \(404\): the service "
                r"has no list any more\. Say where catalogs come from, with "
                r"OctogenResource\(catalogs=ShopCatalogs\(hosts=\[\.\.\.\]\)\) or "
                r"OctogenResource\(catalogs=NamedCatalogs\(keys=\[\.\.\.\]\)\), or name those",
            ),
        ):
            connection_to(server, GrantedCatalogs()).fetch_catalogs()

    def test_a_catalog_that_is_listed_twice_is_there_once(self) -> None:
        first = {"catalog": "acme", "displayName": "A", "productCount": 1}
        body = [first, {**first, "productCount": 2}, {**first, "catalog": "zen"}]
        with RawServer(lambda _: http(body=body)) as server:
            listed = connection_to(server, GrantedCatalogs()).fetch_catalogs()
        assert keys(listed) == ["acme", "zen"]
        assert listed.catalogs[0].product_count == 1
        assert listed.warnings == ["Catalog 'acme' is listed more than once. It is read once."]


class TestShopCatalogs:
    def test_each_host_is_requested_and_all_catalogs_are_listed(self) -> None:
        two = shop("acme.example", catalog_of_shop("acme"), catalog_of_shop("acme-outlet", 7))
        with shops({"acme.example": two, "zen.example": ZEN}) as server:
            listed = connection_to(server, BOTH).fetch_catalogs()
        assert keys(listed) == ["acme", "acme-outlet", "zen"]
        assert [state.product_count for state in listed.catalogs] == [3, 7, 3]
        assert [state.host for state in listed.catalogs] == ["acme.example"] * 2 + ["zen.example"]
        assert all(state.computed_at and not state.last_indexed_at for state in listed.catalogs)
        assert listed.is_complete
        (warning,) = listed.warnings
        assert warning.startswith("Shop 'acme.example' is served by 2 catalogs, and each is read: ")

    def test_the_hosts_are_requested_at_the_same_time(self) -> None:
        together = threading.Barrier(2)

        def answer(_: Received) -> Iterable[bytes]:
            together.wait(30)
            return ACME

        with shops({"acme.example": answer, "zen.example": answer}) as server:
            assert keys(connection_to(server, BOTH).fetch_catalogs()) == ["acme"]

    def test_a_shop_that_is_not_covered_does_not_stop_the_others(self) -> None:
        with shops({"acme.example": not_covered(), "zen.example": ZEN}) as server:
            listed = connection_to(server, BOTH).fetch_catalogs()
        assert keys(listed) == ["zen"]
        assert listed.warnings == [
            "Shop 'acme.example' is not covered by Octogen (404 domain_not_covered). Correct the "
            "host or ask Octogen to cover the shop. Amazon, Walmart, Target, eBay and Etsy are "
            "never covered. The catalogs of this shop are left out."
        ]
        assert listed.is_complete

    @pytest.mark.parametrize(
        "bad",
        [http(500), http(404, {"detail": "Not Found"}), http(body="<h1>down</h1>"), http(body=[1])],
    )
    def test_a_shop_that_fails_does_not_stop_the_others_and_the_list_is_incomplete(
        self, bad: list[bytes]
    ) -> None:
        with shops({"acme.example": bad, "zen.example": ZEN}) as server:
            listed = connection_to(server, BOTH).fetch_catalogs()
        assert keys(listed) == ["zen"]
        (warning,) = listed.warnings
        assert warning.startswith("Shop 'acme.example' ")
        assert not listed.is_complete

    def test_a_shop_that_does_not_answer_in_time_does_not_stop_the_others(self) -> None:
        def wait(_: Received) -> Iterable[bytes]:
            return hanging(lambda: server)

        with shops({"acme.example": wait, "zen.example": ZEN}) as server:
            listed = connection_to(server, BOTH, deadline=0.5).fetch_catalogs()
        assert keys(listed) == ["zen"]
        assert "did not answer in time" in listed.warnings[0]
        assert not listed.is_complete

    def test_hosts_that_wait_for_their_turn_share_the_time(self) -> None:
        def wait(_: Received) -> Iterable[bytes]:
            return hanging(lambda: server)

        hosts = [f"{number}.example" for number in range(40)]
        with (
            shops(dict.fromkeys(hosts, wait)) as server,
            pytest.raises(
                OctogenTimeoutError, match=r"^None of 40 shops could be read\. Shop '0\.example'"
            ),
        ):
            connection_to(server, ShopCatalogs(hosts), deadline=0.3).fetch_catalogs()
        assert len(server.received) < len(hosts)

    def test_one_error_of_one_shop_is_raised_as_it_is(self) -> None:
        source = ShopCatalogs(hosts=["acme.example"])
        with (
            shops({}) as server,
            pytest.raises(OctogenNotFoundError, match=r"^Shop 'acme\.example' is not covered"),
        ):
            connection_to(server, source).fetch_catalogs()

    def test_if_all_fail_the_error_names_them_and_is_one_that_may_pass(self) -> None:
        with (
            shops({"acme.example": not_covered(), "zen.example": http(500)}) as server,
            pytest.raises(
                OctogenServerError,
                match=r"^None of 2 shops could be read\. Shop 'acme\.example' .* Shop 'zen\.ex",
            ) as caught,
        ):
            connection_to(server, BOTH).fetch_catalogs()
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)

    def test_a_wrong_key_is_an_error(self) -> None:
        answer = http(401, {"detail": "Invalid API key"})
        with (
            shops({"acme.example": answer, "zen.example": answer}) as server,
            pytest.raises(OctogenAuthenticationError, match="Invalid API key"),
        ):
            connection_to(server, BOTH).fetch_catalogs()

    def test_a_catalog_of_two_shops_is_there_once(self) -> None:
        with shops({"acme.example": ACME, "zen.example": ACME}) as server:
            listed = connection_to(server, BOTH).fetch_catalogs()
        assert keys(listed) == ["acme"]
        assert listed.warnings == ["Catalog 'acme' is listed more than once. It is read once."]

    def test_hosts_are_normalised_and_each_is_there_once(self) -> None:
        source = ShopCatalogs(
            hosts=[
                "https://Www.Acme.Example:443/shoes?x=1",
                " acme.example ",
                "ACME.EXAMPLE.",
                "zen.example",
            ]
        )
        assert source == BOTH
        assert source.hosts == ("acme.example", "zen.example")

    @pytest.mark.parametrize(
        ("hosts", "text"),
        [
            ([], r"^hosts is empty: name at least one$"),
            ("acme.example", r"^hosts must be a list, not the text 'acme\.example': write \['acme"),
            ([""], r"^hosts has '', which is no host: write one such as 'shop\.example'$"),
            (["acme example"], "which is no host"),
            (["https:///shoes"], "which is no host"),
            (["https://[::1"], "which is no host"),
            (["%2e%2e"], "which is no host"),
            ([None], "^hosts has None, which is no text"),
        ],
    )
    def test_a_wrong_host_is_refused_early(self, hosts: Any, text: str) -> None:
        with pytest.raises(ValueError, match=text):
            ShopCatalogs(hosts=hosts)


class TestNamedCatalogs:
    def test_nothing_is_requested_and_nothing_else_is_known(self) -> None:
        with RawServer(lambda _: http(500)) as server:
            source = NamedCatalogs(keys=["zen", " acme ", "zen"])
            listed = connection_to(server, source).fetch_catalogs()
        assert listed.catalogs == [CatalogState("zen"), CatalogState("acme")]
        assert server.received == []

    @pytest.mark.parametrize(
        ("keys", "text"),
        [
            ([], "^keys is empty: name at least one"),
            ("acme", r"^keys must be a list, not the text 'acme': write \['acme'\]"),
            (["acme", " "], "^NamedCatalogs has an empty key: remove it"),
            ([365], "^keys has 365, which is no text: write it in quotes$"),
        ],
    )
    def test_wrong_keys_are_refused_early(self, keys: Any, text: str) -> None:
        with pytest.raises(ValueError, match=text):
            NamedCatalogs(keys=keys)


class Mine(CatalogSource):
    async def fetch(self, client: OctogenClient) -> CatalogList:
        coverage = await client.get_domain("zen.example")
        return CatalogList([CatalogState(entry.catalog) for entry in coverage.catalogs] * 2, ["!"])


def test_a_source_of_ones_own_may_send_requests() -> None:
    with shops({"zen.example": ZEN}) as server:
        listed = connection_to(server, Mine()).fetch_catalogs()
    assert keys(listed) == ["zen"]
    assert listed.warnings == ["!", "Catalog 'zen' is listed more than once. It is read once."]


@pytest.mark.parametrize("source", [GrantedCatalogs(), BOTH, NamedCatalogs(keys=["acme"])])
def test_a_source_is_a_value_that_can_be_pickled(source: CatalogSource) -> None:
    connection = CatalogService(api_key=ApiKey(KEY), catalogs=source)
    copy = pickle.loads(pickle.dumps(replace(connection, api_key=ApiKey(KEY)).catalogs))
    assert copy == source
    assert hash(copy) == hash(source)
