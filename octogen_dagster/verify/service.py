"""The questions about Octogen's REST API, in the order in which they are asked.

Each belief is one of those that reads rest on: how pages follow each other, what a count means,
what an unknown catalog is answered with. The documents of Octogen say it or are silent; the answers
say what the service does with this key.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import msgspec

from octogen_dagster.api.flow import (
    domain_flow,
    lookup_flow,
    me_flow,
    parsed_lookup,
    parsed_page,
    request_flow,
    search_flow,
)
from octogen_dagster.api.http import Response
from octogen_dagster.api.models import MerchantProductListItem
from octogen_dagster.api.search import SearchRequest
from octogen_dagster.api.spending import dollars, usd
from octogen_dagster.errors import OctogenConnectionError, OctogenNotFoundError
from octogen_dagster.verify.answers import NotAskedError, Question, Seen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from octogen_dagster.api.blocking import BlockingClient
    from octogen_dagster.api.models import MerchantProductListPage, MeResponse
    from octogen_dagster.api.service import Generation

_PAGE_SIZE = 100
_MAX_PAGES = 5
"""The most pages of a catalog whose products are counted."""
_ALWAYS_SENT = ("title", "brand", "currentPrice", "images", "updatedAt")
"""Nullable fields that some product of a full page has, or the columns are of no use."""
_TOO_LARGE = f"the smallest catalog has more than {_MAX_PAGES} pages: name a smaller shop."
_KEYWORDS = "dress"
_PRODUCTS = "/products/search"


class Catalog(msgspec.Struct, frozen=True):
    """A catalog as the service lists it: its products, and when it was computed or indexed."""

    key: str
    product_count: int | None
    indexed_at: str | None


class Service:
    """The service that is asked, and what was read of it for more than one question."""

    def __init__(self, client: BlockingClient, host: str | None) -> None:
        self.client = client
        self.host = host
        self._pages: list[MerchantProductListPage] = []

    def require_shop(self) -> None:
        """Raise a ValueError if the service does not cover the host that the user named."""
        if self.host is not None and self.generation == "current":
            try:
                self.client.run(domain_flow(self.client.service, self.host))
            except OctogenNotFoundError as error:
                raise ValueError(f"--host: {error}") from None

    def require_money(self, *, pages: int = 0, lookups: int = 0) -> None:
        """Raise `NotAskedError` if so many charged answers cost more than is left."""
        spending = self.client.service.spending
        prices = spending.prices
        cost = pages * dollars(prices.search_page_usd) + lookups * dollars(prices.lookup_usd)
        left = spending.left_usd
        if left is not None and cost > left:
            raise NotAskedError(
                f"it may cost {usd(cost)}, and {usd(left)} of --max-usd are left: raise it."
            )

    def get(self, path: str) -> Any:
        """Request a document that is not charged."""
        response = self.client.run(
            request_flow(self.client.service, "GET", path, f"The service's {path}")
        )
        return msgspec.json.decode(response.content)

    def search(self, **arguments: Any) -> Response:
        """Request a page of a search, of the catalog that is asked about unless one is named."""
        body = SearchRequest.of(**{"catalog": self.only_catalog, **arguments}).body()
        return self.client.run(search_flow(self.client.service, body, "The search"))

    def search_page(self, **arguments: Any) -> MerchantProductListPage:
        """`search`, with the answer as a page."""
        return parsed_page(self.search(**arguments), "The search")

    @cached_property
    def me(self) -> MeResponse | None:
        """The owner of the key; None from a service of the older contract."""
        try:
            return self.client.run(me_flow(self.client.service))
        except OctogenNotFoundError:
            return None

    @property
    def generation(self) -> Generation:
        return "seed" if self.me is None else "current"

    def require_current(self) -> None:
        if self.generation == "seed":
            raise NotAskedError("the older contract has no such thing.")

    def catalogs(self) -> list[Catalog]:
        """The catalogs with products, the smallest first, as the service says it now."""
        if self.generation == "seed":
            entries, when = self.get("/catalogs"), "lastIndexedAt"
        elif self.host is None:
            raise NotAskedError("it needs a shop: give --host.")
        else:
            found = self.get(f"/domains/{quote(self.host.strip(), safe='')}")
            entries, when = found["catalogs"], "computedAt"
        catalogs = [
            Catalog(entry["catalog"], entry.get("productCount"), entry.get(when))
            for entry in entries
        ]
        return sorted(
            (each for each in catalogs if each.product_count != 0),
            key=lambda each: each.product_count or 0,
        )

    @cached_property
    def first_listed(self) -> list[Catalog]:
        """The catalogs as they were listed first."""
        return self.catalogs()

    @cached_property
    def only_catalog(self) -> str | None:
        """The key of the smallest catalog; None for all that the key may search."""
        if self.host is None and self.generation == "current":
            return None
        listed = self.first_listed
        if not listed:
            raise NotAskedError("there is no catalog with products.")
        return listed[0].key

    def missing_pages(self, number: int) -> int:
        """The number of the first pages that were not read yet."""
        return max(0, number - len(self._pages))

    def page(self, number: int) -> MerchantProductListPage | None:
        """Return a page by its number from 1, or None behind the last one. Each is read once."""
        while len(self._pages) < number:
            cursor = self._pages[-1].next_cursor if self._pages else None
            if self._pages and not cursor:
                return None
            self._pages.append(self.search_page(limit=_PAGE_SIZE, cursor=cursor))
        return self._pages[number - 1]

    def first_page(self) -> MerchantProductListPage:
        self.require_money(pages=self.missing_pages(1))
        page = self.page(1)
        assert page is not None
        if not page.items:
            raise NotAskedError("the search finds no products.")
        return page


def _generation(service: Service) -> Seen:
    if service.generation == "current":
        return Seen(True, "the current contract: it has /me.")
    service.get("/catalogs")
    return Seen(True, "the older contract (seed): it has /catalogs and no /me.")


def _account(service: Service) -> Seen:
    service.require_current()
    me = service.me
    organization = me and me.organization
    if not organization or not organization.type:
        return Seen(False, "/me names no organisation with a type.")
    named = "it names the rate limit" if me and me.rate_limit else "it names no rate limit"
    return Seen(
        organization.type == "catalog_partner",
        f"an organisation of type {organization.type!r}; {named}.",
        f"{organization.name}",
    )


def _rate_limit(service: Service) -> Seen:
    response = service.client.run(
        request_flow(
            service.client.service,
            "GET",
            "/me" if service.generation == "current" else "/catalogs",
            "The rate limit",
        )
    )
    names = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
    values = [response.headers.get(name) for name in names]
    if values == [None] * 3 and service.me is not None and service.me.rate_limit is None:
        return Seen(True, "no headers, and /me says that the limiter is off.")
    if not all(value and value.isascii() and value.isdigit() for value in values):
        missing = ", ".join(n for n, v in zip(names, values, strict=True) if not v)
        return Seen(False, f"headers missing: {missing}." if missing else f"headers: {values}.")
    limit, remaining, _ = (int(value) for value in values if value)
    return Seen(
        limit > 0 and remaining <= limit,
        f"{limit:,} requests a minute, of which {remaining:,} were left.",
    )


def _page_fields(service: Service) -> Seen:
    page = service.first_page()
    new = sorted(
        {name for item in page.items for name in item.model_extra or ()}
        | {f"page.{name}" for name in page.model_extra or ()}
    )
    said = f"{len(page.items)} products, each with an identity and the documented types"
    said += f"; fields that are new: {', '.join(new)}." if new else "; no new field."
    aliases = {
        field.alias or name: name for name, field in MerchantProductListItem.model_fields.items()
    }
    absent = [
        alias
        for alias in _ALWAYS_SENT
        if all(getattr(item, aliases[alias]) is None for item in page.items)
    ]
    if absent:
        return Seen(False, f"no product of a page has {', '.join(absent)}.")
    return Seen(True, said)


def _unknown_catalog(service: Service) -> Seen:
    service.require_money(pages=1)
    unknown = f"octogen-verify-{secrets.token_hex(8)}"
    try:
        page = service.search_page(catalog=unknown, limit=1)
    except OctogenNotFoundError as error:
        return Seen(
            service.generation == "seed" and error.detail == "catalog_not_found",
            "a 404 that says so.",
        )
    found = len(page.items)
    said = f"200 and {found} products." if found else "200 and no products."
    return Seen(not found and service.generation == "current", said)


def _repeated_page(service: Service) -> Seen:
    service.require_money(pages=service.missing_pages(1) + 1)
    first = service.first_page()
    again = service.search_page(limit=_PAGE_SIZE)
    same = sum(a == b for a, b in zip(first.uuids, again.uuids, strict=False))
    said = f"{same} of {len(first.items)} products at the same place."
    return Seen(first.uuids == again.uuids, said)


def _next_page(service: Service) -> Seen:
    service.require_money(pages=service.missing_pages(2))
    first = service.first_page()
    second = service.page(2)
    if second is None:
        raise NotAskedError("the search has one page.")
    if second.next_cursor is not None and second.next_cursor == first.next_cursor:
        return Seen(False, "the second page's cursor is the first one's: a loop.")
    repeated = len(set(first.uuids) & set(second.uuids))
    said = f"{repeated} of its {len(second.items)} products were on the page before."
    return Seen(repeated < max(1, len(second.items)) / 2, said)


def _count(service: Service) -> Seen:
    if service.only_catalog is None:
        raise NotAskedError("it needs a shop: give --host.")
    catalog = service.first_listed[0]
    if catalog.product_count is None:
        raise NotAskedError("the service does not count the catalog.")
    pages = -(-catalog.product_count // _PAGE_SIZE)
    if pages > _MAX_PAGES:
        raise NotAskedError(_TOO_LARGE)
    service.require_money(pages=service.missing_pages(pages))
    uuids: set[str] = set()
    for number in range(1, _MAX_PAGES + 1):
        page = service.page(number)
        assert page is not None
        uuids.update(page.uuids)
        if not page.next_cursor:
            break
    else:
        raise NotAskedError(_TOO_LARGE)
    rows, count = len(uuids), catalog.product_count
    unit = "rows" if rows == count else "groups of products, which may have several rows"
    said = f"{rows:,} rows where {count:,} are counted"
    if rows < count:
        return Seen(False, f"{said}: the search lists fewer than are counted.", catalog.key)
    return Seen(True, f"{said}: it counts {unit}.", catalog.key)


def _brand_split(service: Service) -> Seen:
    service.require_current()
    service.require_money(pages=service.missing_pages(1) + 2)
    first = service.first_page()
    brands = [item.brand.name for item in first.items if item.brand and item.brand.name]
    if not brands:
        raise NotAskedError("no product of the first page has a brand.")
    brand = brands[0]
    own = {item.uuid for item in first.items if item.brand and item.brand.name == brand}
    facets = [{"name": "brand_name", "values": [brand]}]
    chosen = set(service.search_page(limit=_PAGE_SIZE, facets=facets).uuids)
    others = set(service.search_page(limit=_PAGE_SIZE, exclude_facets=facets).uuids)
    if not chosen:
        return Seen(False, "a brand of the first page finds nothing as a facet.", brand)
    both, left = len(chosen & others), len(own & others)
    said = f"{both} products are with the brand and without it"
    if left:
        said += f", and {left} of the brand are where it is left out"
    return Seen(not both and not left, f"{said}.", brand)


def _as_written(service: Service) -> Seen:
    service.require_current()
    service.require_money(pages=1)
    page = service.search_page(q=_KEYWORDS, understand=False, limit=1)
    query = page.effective_query
    if not isinstance(query, Mapping):
        return Seen(False, "the answer does not say what was searched (effectiveQuery).")
    derived = [
        str(each.get("name"))
        for each in query.get("facets") or ()
        if isinstance(each, Mapping) and each.get("source") != "caller"
    ]
    if query.get("understood") or derived:
        return Seen(False, f"the keywords were understood; derived: {', '.join(derived) or '-'}.")
    return Seen(True, "the keywords were matched as they are written.")


def _unknown_product(service: Service) -> Seen:
    service.require_money(pages=service.missing_pages(1), lookups=1)
    host = service.host
    if host is None:
        page = service.first_page()
        host = urlsplit(page.items[0].product_url).hostname or "example.com"
    url = f"https://{host}/octogen-verify-{secrets.token_hex(8)}"
    try:
        found = service.client.run(lookup_flow(service.client.service, url, parsed_lookup))
    except OctogenNotFoundError as error:
        return Seen(error.detail == "product_not_found", "a 404 that says so, which is free.")
    return Seen(False, f"a product, whose source is {found.source!r}; it is charged.")


def _without_a_key(service: Service) -> Seen:
    import httpx

    from octogen_dagster.api.service import HEADERS

    settings = service.client.service
    try:
        response = httpx.post(
            f"{settings.base_url}{_PRODUCTS}",
            json={"q": _KEYWORDS, "limit": 1},
            headers=HEADERS,
            timeout=settings.timeout,
        )
    except httpx.HTTPError as error:
        raise OctogenConnectionError(
            f"A search without a key: no answer from {settings.base_url} "
            f"({type(error).__name__}). Check the address and the network."
        ) from None
    status = response.status_code
    if status == httpx.codes.OK:
        return Seen(True, "the trial answers: a search without a key is a 200.")
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return Seen(True, "the trial answers, and its requests of today are used up (429).")
    is_refused = status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
    said = f"a search without a key is refused ({status})." if is_refused else f"a {status}."
    return Seen(is_refused, said)


def _url_lists(service: Service) -> Seen:
    service.require_current()
    try:
        lists = service.get("/coverage/url-lists?limit=1")
    except OctogenNotFoundError:
        raise NotAskedError("they are not open to this organisation (404).") from None
    is_known = isinstance(lists, dict) and isinstance(lists.get("items"), list)
    if not is_known:
        return Seen(False, "an answer without `items`.")
    return Seen(True, "they are open to this organisation.")


def _indexed_at(service: Service) -> Seen:
    before = {each.key: each.indexed_at for each in service.first_listed}
    now = {each.key: each.indexed_at for each in service.catalogs()}
    if not any(before.values()):
        return Seen(False, "the service does not say when a catalog was indexed.")
    moved = [key for key in before.keys() & now.keys() if before[key] != now[key]]
    said = f"{len(moved)} of {len(before)} times moved between two requests."
    return Seen(not moved, said, ", ".join(sorted(moved)))


_CATALOGS = "docs/catalogs.md"
QUESTIONS: Sequence[Question[Service]] = (
    Question(
        "generation",
        "The service speaks one of the two generations of the contract that this package reads.",
        "OCTOGEN_BASE_URL and OCTOGEN_HOST, docs/deploying.md",
        _generation,
    ),
    Question(
        "account",
        "The key is of an organisation of type catalog_partner: no other may use the API.",
        "the key, OCTOGEN_PLATFORM_API_KEY",
        _account,
    ),
    Question(
        "rate limit",
        "Each answer says the rate limit and what is left of it, unless the limiter is off.",
        "`reserved_fraction` and `concurrency`, docs/searches.md",
        _rate_limit,
    ),
    Question(
        "fields of a page",
        "A page has the documented fields in the documented types; new ones are only counted.",
        "the columns of snapshots, docs/snapshots.md; please report it",
        _page_fields,
        pages=1,
    ),
    Question(
        "unknown catalog",
        "A key that matches no catalog finds nothing: no error today, a 404 in the older contract.",
        f"snapshots of whole catalogs that never shrink to nothing, {_CATALOGS}",
        _unknown_catalog,
        pages=1,
    ),
    Question(
        "repeated first page",
        "A first page that is requested again has the same products in the same order.",
        "reads of services that do not say when a catalog was indexed; please report it",
        _repeated_page,
        pages=1,
    ),
    Question(
        "next page",
        "A cursor leads on: few products of a page were on the page before.",
        "every read of more than one page; please report it",
        _next_page,
        pages=1,
    ),
    Question(
        "facet and its exclusion",
        "A brand as a facet and as an excluded one split a catalog: no product is in both.",
        "`max_extra_pages_fraction=0`, which reads each catalog in one walk, docs/searches.md",
        _brand_split,
        pages=2,
    ),
    Question(
        "keywords as written",
        "With `understand: false` no filter is derived from the keywords.",
        "`understand`, docs/searches.md",
        _as_written,
        pages=1,
    ),
    Question(
        "unknown product",
        "A lookup in the index only of an address that is not in it is a 404, which is free.",
        "details of products that are gone, docs/changes-and-details.md",
        _unknown_product,
        lookups=1,
    ),
    Question(
        "without a key",
        "A search without a key is refused, or is the trial that Octogen documents.",
        "nothing that this package does: it never asks without a key",
        _without_a_key,
    ),
    Question(
        "URL lists",
        "Organisations may upload lists of product addresses.",
        "URL lists, docs/url-lists.md",
        _url_lists,
    ),
    Question(
        "unit of the count",
        "A catalog has at least as many rows as `productCount`, which may count groups of rows.",
        "costs that are estimated, docs/costs.md",
        _count,
        pages=_MAX_PAGES - 2,
    ),
    Question(
        "time of indexing",
        "The time at which a catalog was indexed stays until it is indexed again.",
        f"the catalog sensor, which reads again what has a new time, {_CATALOGS}",
        _indexed_at,
    ),
)
