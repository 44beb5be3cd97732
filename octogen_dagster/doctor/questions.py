"""The questions about Octogen's REST API, in order.

The docstring of each question is an assumption that reads rely on. Octogen documents only some of
them. The responses show how the service behaves for this API key.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from urllib.parse import urlsplit

from octogen_dagster.api.catalog_sources import NamedCatalogs
from octogen_dagster.api.flow import request_flow
from octogen_dagster.api.http import Response
from octogen_dagster.api.models import MerchantProductListItem
from octogen_dagster.api.operations import parsed_page, shop_path
from octogen_dagster.api.search import SearchFilters
from octogen_dagster.doctor.asking import Charged, Question, Seen
from octogen_dagster.doctor.service import (
    PAGE_SIZE,
    QUESTION_TIMEOUT,
    Evidence,
    NotAskedError,
    Service,
)
from octogen_dagster.errors import (
    OctogenAPIError,
    OctogenConnectionError,
    OctogenNotFoundError,
    OctogenResponseError,
)

_MAX_PAGES = 5
"""Products are counted only in catalogs with at most this many pages."""
_WALKED_PAGES = 3  # a cursor loop can begin after the second page
_BRANDS = 3
_MIN_AGE_SECONDS = 60
_ALWAYS_SENT = ("title", "brand", "currentPrice", "images", "updatedAt")
"""Nullable fields that must have a value in at least one product on a full page."""
_KEYWORDS = "dress"
_REFUSED_CURSOR = (400, 404, 410, 422)


QUESTIONS: list[Question] = []


def _question(
    subject: str,
    concerns: str,
    charged: Callable[[Service], Charged] | None = None,
    **charges: int,
) -> Callable[[Callable[[Service], Seen]], None]:
    """Register a question.

    The function's docstring is the assumption, and `charges` are the arguments for `Charged`.
    """

    def add(ask: Callable[[Service], Seen]) -> None:
        belief = " ".join((ask.__doc__ or "").split())
        always = Charged(**charges)
        QUESTIONS.append(Question(subject, belief, concerns, ask, charged or (lambda _: always)))

    return add


@_question("rate limit", "`reserved_percent` and `concurrency`, docs/searches.md")
def _rate_limit(service: Service) -> Seen:
    """If rate limiting is on, each response reports the rate limit and the remaining requests."""
    path = "/me" if service.generation == "current" else "/catalogs"
    flow = request_flow(service.client.service, "GET", path, "The rate limit")
    response = service.client.run(flow)
    names = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
    values = [response.headers.get(name) for name in names]
    if values == [None] * 3 and service.me is not None and service.me.rate_limit is None:
        return Seen(True, "rate limiting is off, so there are no rate limit headers.")
    if not all(value and value.isascii() and value.isdigit() for value in values):
        missing = ", ".join(n for n, v in zip(names, values, strict=True) if not v)
        return Seen(False, f"headers missing: {missing}." if missing else f"headers: {values}.")
    limit, remaining, _ = (int(value) for value in values if value)
    return Seen(
        limit > 0 and remaining <= limit,
        f"{limit:,} requests per minute, {remaining:,} remaining.",
    )


@_question("time of indexing", "catalog sensor, docs/catalogs.md")
def _indexed_at(service: Service) -> Seen:
    """A catalog's index time changes only when the catalog is indexed again."""
    before = {each.catalog: each.indexed_at for each in service.catalogs()}
    if service.generation == "current" and not before:
        return Seen(False, "Octogen covers the shop, but the response lists no catalogs.")
    now = {each.catalog: each.indexed_at for each in service.read_catalogs()}
    times = [each for each in now.values() if each]
    if isinstance(service.service.catalog_source, NamedCatalogs):
        raise NotAskedError("the catalog source NamedCatalogs does not request index times.")
    if not times:
        return Seen(False, "the service reports no index times.")
    moved = [key for key in before.keys() & now.keys() if before[key] != now[key]]
    said = f"{len(moved)} of {len(before)} index times changed between two requests."
    if path := shop_path(service.service.base_url):
        said += f" Shop endpoint: {path}."
    present = datetime.now(UTC)
    if not moved and all((present - each).total_seconds() < _MIN_AGE_SECONDS for each in times):
        said = (
            "all index times are less than a minute old. The service might have sent the current "
            "time instead of the index times. Run the command again later."
        )
        return Seen(False, said)
    return Seen(not moved, said, ", ".join(sorted(moved)))


@_question("counts by category", "search estimates, docs/costs.md")
def _counts(service: Service) -> Seen:
    """The product counts by category never add up to more than `productCount`."""
    service.require_current()
    count, catalog = service.count(), service.require_catalog().catalog
    counted = service.client.count_products(SearchFilters(), [catalog])
    said = f"all categories together have {counted:,} products; the catalog has {count:,}."
    return Seen(counted <= count, said, catalog)


@_question("fields of a page", "columns, docs/snapshots.md; please report it", walk=1)
def _page_fields(service: Service) -> Seen:
    """A page has the documented fields and types. New fields are allowed."""
    page = service.walk(1)[0]
    new = sorted(
        {name for item in page.items for name in item.model_extra or ()}
        | {f"page.{name}" for name in page.model_extra or ()}
    )
    new_fields = f"new fields: {', '.join(new)}." if new else "no new fields."
    aliases = {
        field.alias or name: name for name, field in MerchantProductListItem.model_fields.items()
    }
    absent = [
        alias
        for alias in _ALWAYS_SENT
        if all(getattr(item, aliases[alias]) is None for item in page.items)
    ]
    if absent:  # the fields are nullable, and the shop might not publish them
        return Seen(None, f"no product on the page has {', '.join(absent)}; {new_fields}")
    said = f"{len(page.items)} products with ids and the documented types; {new_fields}"
    return Seen(True, said)


def _pages_of_catalog(service: Service) -> int:
    pages = max(1, -(-service.count() // PAGE_SIZE))
    if pages > _MAX_PAGES:
        raise NotAskedError(
            f"the smallest catalog has {service.count():,} products, which exceeds the limit of "
            f"{_MAX_PAGES * PAGE_SIZE}. Pass the --host of a shop with a smaller catalog."
        )
    return pages


def _charged_count(service: Service) -> Charged:
    pages = _pages_of_catalog(service)
    service.require_money(max(0, pages - len(service.pages)))
    return Charged(walk=pages)


@_question("unit of the count", "cost estimates, docs/costs.md", _charged_count)
def _count(service: Service) -> Seen:
    """A catalog has at least `productCount` rows. `productCount` can count product groups."""
    pages = service.walk(_charged_count(service).walk)
    count, catalog = service.count(), service.require_catalog().catalog
    rows, has_more = len({uuid for page in pages for uuid in page.uuids}), pages[-1].next_cursor
    if rows < count and has_more:
        raise NotAskedError(f"{len(pages)} pages contain only {rows:,} of {count:,} products.")
    said = f"{'at least ' if has_more else ''}{rows:,} rows for a count of {count:,}"
    if rows < count:
        return Seen(False, f"{said}: the search lists fewer products.", catalog)
    counts_rows = rows == count and not has_more
    unit = "rows" if counts_rows else "product groups, which can have several rows"
    return Seen(True, f"{said}, so the service counts {unit}.", catalog)


@_question("next page", "reads with more than one page; please report it", walk=_WALKED_PAGES)
def _next_page(service: Service) -> Seen:
    """Pages repeat only a few products from earlier pages, and no cursor occurs twice."""
    first, *later = service.walk(_WALKED_PAGES)
    if not later:
        raise NotAskedError("the search has only one page.")
    cursors, before, repeats = {first.next_cursor}, set(first.uuids), 0
    for number, page in enumerate(later, 2):
        if page.next_cursor in cursors:
            return Seen(
                False,
                f"page {number} repeats an earlier page's cursor, so a read would loop forever.",
            )
        repeated = len(before & set(page.uuids))
        if repeated >= max(1, len(page.items)) / 2:
            said = f"page {number} has {len(page.items)} products, and {repeated} of them were on "
            return Seen(False, f"{said}an earlier page.")
        cursors.add(page.next_cursor)
        before.update(page.uuids)
        repeats += repeated
    return Seen(True, f"{len(later)} pages repeat {repeats} products from earlier pages.")


@_question("size of a page", "cost estimates, docs/costs.md", walk=1)
def _page_size(service: Service) -> Seen:
    """A page has the requested 100 products, unless it is the last page."""
    sizes = [(len(page.items), page.next_cursor) for page in service.walk(1)]
    odd = [size for size, has_next in sizes if size > PAGE_SIZE or (has_next and size < PAGE_SIZE)]
    if odd:
        return Seen(False, f"the page has {odd[0]:,} products instead of {PAGE_SIZE}.")
    return Seen(True, f"each page has {PAGE_SIZE} products, except for the last page.")


@_question("catalog of products", "the column `catalog_key`; please report it", walk=1)
def _catalog_of_products(service: Service) -> Seen:
    """Each product belongs to the searched catalog and has its key in `catalogKey`."""
    service.require_current()
    catalog, items = service.require_catalog().catalog, service.items()
    named = [item.catalog_key for item in items if item.catalog_key]
    if not named:
        return Seen(None, "no product has a catalogKey.")
    others = {key for key in named if key != catalog}
    number = sum(key in others for key in named)
    said = f"{number:,} of {len(items):,} products belong to another catalog."
    return Seen(not others, said, ", ".join(sorted(others)))


@_question("brands and prices", "alerts, positions and checks, which skip the others", walk=1)
def _brands_and_prices(service: Service) -> Seen:
    """At least half the products have a brand, a price and a currency."""
    items = service.items()
    brands = sum(bool(item.brand and item.brand.name) for item in items)
    prices = sum(bool(item.current_price) for item in items)
    known, every = [brands, prices], len(items)
    said = f"{every:,} products: {every - brands:,} without brand, {every - prices:,} without price"
    if service.generation == "current":
        currencies = Counter(item.currency for item in items if item.currency)
        known.append(sum(currencies.values()))
        named = "".join(f", {count:,} in {name}" for name, count in currencies.most_common(5))
        said += f"{named}, {every - known[-1]:,} without currency"
    return Seen(True if min(known) >= every / 2 else None, f"{said}.")


@_question("made-up cursor", "resumed reads; please report it", walk=1, pages=1)
def _made_up_cursor(service: Service) -> Seen:
    """For an unknown cursor, the service returns page 1 instead of an error."""
    first = service.walk(1)[0]
    cursor = f"octogen-doctor-{secrets.token_hex(8)}"
    try:
        page = service.search(limit=PAGE_SIZE, cursor=cursor)
    except OctogenAPIError as error:
        if error.status_code not in _REFUSED_CURSOR:
            raise
        return Seen(False, f"status {error.status_code}.", str(error))
    same = len(set(first.uuids).intersection(page.uuids))
    is_first = same >= len(first.items) / 2
    service.after_made_up_cursor = page, is_first
    return Seen(
        is_first, f"{same} of {len(page.items)} products in the response are also on page 1."
    )


@_question("repeated first page", "reads without an index time; please report it", walk=1)
def _repeated_page(service: Service) -> Seen:
    """Requesting the first page again returns the same products in the same order."""
    first = service.walk(1)[0]
    if service.after_made_up_cursor is None:  # rejected requests are free
        again = service.search(limit=PAGE_SIZE)
    else:
        again, is_first = service.after_made_up_cursor
        if not is_first:
            raise NotAskedError("the made-up cursor returned another page.")
    same = sum(a == b for a, b in zip(first.uuids, again.uuids, strict=False))
    said = f"{same} of {len(first.items)} products are in the same position."
    return Seen(first.uuids == again.uuids, said)


@_question("unknown catalog", "protection from empty snapshots, docs/catalogs.md", pages=1)
def _unknown_catalog(service: Service) -> Seen:
    """A search in an unknown catalog returns no products (older API contract: status 404)."""
    unknown = f"octogen-doctor-{secrets.token_hex(8)}"
    try:
        page = service.search(catalog=unknown, limit=1)
    except OctogenNotFoundError as error:
        return Seen(
            service.generation == "seed" and error.detail == "catalog_not_found",
            "status 404 for an unknown catalog.",
        )
    found = len(page.items)
    said = f"status 200 with {found or 'no'} products."
    return Seen(not found and service.generation == "current", said)


@_question("known product", "details, docs/changes-and-details.md", walk=1, lookups=1)
def _known_product(service: Service) -> Seen:
    """A strict lookup by URL finds a product that a search lists."""
    item = service.items()[0]
    try:
        found = service.client.lookup_product(item.product_url)
    except OctogenNotFoundError:
        return Seen(False, "the lookup of a listed product returned status 404.")
    if found.source not in (None, "indexed"):
        return Seen(False, f"the product has the source {found.source!r} instead of 'indexed'.")
    if found.product.uuid == item.uuid:
        return Seen(True, "the lookup returned the listed product.")
    # Several catalogs can list the same page as different products.
    is_elsewhere = found.catalog_key not in (None, item.catalog_key or service.only_catalog)
    said = "the lookup returned another product"
    said += " with the same URL from another catalog." if is_elsewhere else "."
    return Seen(is_elsewhere, said, item.product_url)


@_question("unknown product", "details, docs/changes-and-details.md", walk=1, lookups=1)
def _unknown_product(service: Service) -> Seen:
    """An index-only lookup of an unknown URL returns status 404 free of charge."""
    host = urlsplit(service.items()[0].product_url).hostname or "example.com"
    url = f"https://{host}/octogen-doctor-{secrets.token_hex(8)}"
    try:
        found = service.client.lookup_product(url)
    except OctogenNotFoundError:
        return Seen(True, "the lookup returned status 404 free of charge.")
    said = (
        "Octogen charged for the lookup of an unknown URL. The lookup found a product with source "
        f"{found.source!r}."
    )
    return Seen(False, said)


@_question("keywords as written", "`understand`, docs/searches.md", pages=1)
def _as_written(service: Service) -> Seen:
    """With `understand: false`, keywords are matched as written and no filters are derived."""
    service.require_current()
    page = service.search(q=_KEYWORDS, understand=False, limit=1)
    query = page.effective_query
    if not isinstance(query, Mapping):
        return Seen(False, "the response has no effectiveQuery.")
    derived = [
        str(each.get("name"))
        for each in query.get("facets") or ()
        if isinstance(each, Mapping) and each.get("source") != "caller"
    ]
    if query.get("understood") or derived:
        return Seen(False, f"keywords were interpreted; derived: {', '.join(derived) or '-'}.")
    if query.get("text") != _KEYWORDS:
        return Seen(False, f"{query.get('text')!r} was matched instead of {_KEYWORDS!r}.")
    return Seen(True, "the keywords were matched as written.")


def _pages_of_split(service: Service) -> int:
    """Return the maximum number of pages needed to read a catalog in two parts."""
    try:
        return 1 + _pages_of_catalog(service)
    except NotAskedError:
        return 2


@_question(
    "facet and its exclusion",
    "parallel reads (disable them with `max_extra_pages_percent=0`), docs/searches.md",
    lambda service: Charged(walk=1, pages=_pages_of_split(service)),
)
def _brand_split(service: Service) -> Seen:
    """A search for some brands and a search that excludes them return disjoint parts of a catalog.

    Each product is in one of the parts.
    """
    service.require_current()
    most = _pages_of_split(service)
    service.require_money(2)
    items, catalog = service.items(), service.catalog
    names = Counter(item.brand.name for item in items if item.brand and item.brand.name)
    # Facets match canonical brand names, which can differ from the shop's names.
    canonical = [name for name, _ in (catalog.brands if catalog else ())[:_BRANDS]]
    brands = list(dict.fromkeys([*canonical, *(name for name, _ in names.most_common(_BRANDS))]))
    if not brands:
        raise NotAskedError("no product on the first page has a brand.")
    facets = [{"name": "brand_name", "values": brands}]
    chosen, read, has_chosen = service.search_all(most - 1, facets=facets)
    others, _, has_others = service.search_all(most - read, exclude_facets=facets)
    details = ", ".join(brands)
    if not chosen:
        return Seen(False, "a search for the most frequent brands returns no products.", details)
    said = f"{len(chosen):,} products with the brands and {len(others):,} without them"
    if not (has_chosen and has_others):
        said += " on the pages read"
    if both := len(chosen & others):
        return Seen(False, f"{said}; {both:,} are in both parts.", details)
    # If the first part was not read to its end, only products without a brand cannot be in it.
    known = {item.uuid for item in items if has_others and (has_chosen or not item.brand)}
    missing = len(known - chosen - others)
    said += f"; {missing:,} listed products are in neither." if missing else "; no overlap."
    return Seen(not missing, said, details)


@_question("without a key", "nothing in this package, which always sends a key")
def _without_a_key(service: Service) -> Seen:
    """A search without an API key is rejected or, as documented, allowed as a trial."""
    import httpx

    from octogen_dagster.api.service import HEADERS

    url, body = f"{service.client.service.base_url}/products/search", {"q": _KEYWORDS, "limit": 1}
    try:
        response = httpx.post(url, json=body, headers=HEADERS, timeout=QUESTION_TIMEOUT)
    except httpx.HTTPError as error:
        raise OctogenConnectionError(f"A search without a key: {type(error).__name__}.") from None
    status = response.status_code
    if status == httpx.codes.OK:
        try:
            parsed_page(Response(status, dict(response.headers), response.content), "The trial")
        except OctogenResponseError as error:
            return Seen(False, "status 200 without a search page.", str(error))
        return Seen(True, "the service allows a trial search without a key (200).")
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return Seen(
            True,
            "the service allows trial searches without a key, but today's limit is reached (429).",
        )
    is_rejected = status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
    said = f"a search without a key is rejected ({status})." if is_rejected else f"status {status}."
    return Seen(is_rejected, said)


@_question("URL lists", "URL lists, docs/url-lists.md")
def _url_lists(service: Service) -> Seen:
    """Organizations can upload URL lists."""
    service.require_current()
    try:
        service.client.list_coverage_url_lists(limit=1)
    except OctogenNotFoundError:
        raise NotAskedError("not available to this organization (404).") from None
    return Seen(True, "available to this organization.")


def _charged_later(service: Service) -> Charged:
    if not service.before:
        raise NotAskedError("this question requires an earlier report. Pass --compare.")
    return Charged(walk=1)


def _now_and_before(service: Service) -> tuple[Evidence, Evidence]:
    service.walk(_charged_later(service).walk)
    now, before = service.evidence(), service.before
    assert now
    assert before
    if now["catalog"] != before["catalog"]:
        raise NotAskedError(
            "the earlier report is for another catalog. Pass the --host of the earlier report."
        )
    return now, before


@_question(
    "time of indexing, later",
    "catalog sensor, docs/catalogs.md",
    _charged_later,
)
def _time_moves(service: Service) -> Seen:
    """Between two runs, a catalog's index time changes only if the catalog was indexed again."""
    now, before = _now_and_before(service)
    if not (now["indexed_at"] and before["indexed_at"]):
        raise NotAskedError("the service reports no index time for the catalog.")
    if now["indexed_at"] == before["indexed_at"]:
        return Seen(True, f"the index time has not changed since {before['at']}.")
    if now["content"] != before["content"]:
        return Seen(True, f"the index time and the first page have changed since {before['at']}.")
    said = f"the index time has changed since {before['at']}, but every field on the first page is "
    return Seen(None, f"{said}the same.")


@_question("first page, later", "resumed reads; please report it", _charged_later)
def _order_stays(service: Service) -> Seen:
    """The first page keeps its order until the catalog is indexed again."""
    now, before = _now_and_before(service)
    pairs = zip(now["products"], before["products"], strict=False)
    said = f"{sum(a == b for a, b in pairs)} of {len(now['products'])} products are in the same "
    said += f"position as at {before['at']}"
    if now["products"] == before["products"]:
        return Seen(True, f"{said}.")
    if not now["indexed_at"]:
        return Seen(None, f"{said}. The catalog might have been indexed since then.")
    is_indexed = now["indexed_at"] != before["indexed_at"]
    when = "was indexed since then" if is_indexed else "was not indexed since then"
    return Seen(is_indexed, f"{said}; the catalog {when}.")
