"""The questions about Octogen's REST API, in the order in which they are asked.

Each belief is one of those that reads rest on: how pages follow each other, what a count means,
what an unknown catalog is answered with. The documents of Octogen say it or are silent; the answers
say what the service does with this key.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from urllib.parse import urlsplit

from octogen_dagster.api.catalog_sources import NamedCatalogs
from octogen_dagster.api.flow import parsed_page, request_flow, shop_path
from octogen_dagster.api.http import Response
from octogen_dagster.api.models import MerchantProductListItem
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
"""The most pages of a catalog whose products are counted."""
_WALKED_PAGES = 3  # of any catalog: a loop may begin behind the second page
_BRANDS = 3
_MIN_AGE_SECONDS = 60
_ALWAYS_SENT = ("title", "brand", "currentPrice", "images", "updatedAt")
"""Nullable fields that some product of a full page has, or the columns are of no use."""
_KEYWORDS = "dress"
_REFUSED_CURSOR = (400, 404, 410, 422)


QUESTIONS: list[Question] = []


def _question(
    subject: str,
    concerns: str,
    charged: Callable[[Service], Charged] | None = None,
    **charges: int,
) -> Callable[[Callable[[Service], Seen]], None]:
    """Add what asks a question; its docstring is the belief. `charges` are those of `Charged`."""

    def add(ask: Callable[[Service], Seen]) -> None:
        belief = " ".join((ask.__doc__ or "").split())
        always = Charged(**charges)
        QUESTIONS.append(Question(subject, belief, concerns, ask, charged or (lambda _: always)))

    return add


@_question("rate limit", "`reserved_percent` and `concurrency`, docs/searches.md")
def _rate_limit(service: Service) -> Seen:
    """Each answer says the rate limit and what is left of it, unless the limiter is off."""
    path = "/me" if service.generation == "current" else "/catalogs"
    flow = request_flow(service.client.service, "GET", path, "The rate limit")
    response = service.client.run(flow)
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


@_question("time of indexing", "what the catalog sensor reads again, docs/catalogs.md")
def _indexed_at(service: Service) -> Seen:
    """The time at which a catalog was indexed stays until it is indexed again."""
    before = {each.catalog: each.indexed_at for each in service.catalogs()}
    if service.generation == "current" and not before:
        return Seen(False, "the shop is covered, and the answer has no list of catalogs.")
    now = {each.catalog: each.indexed_at for each in service.read_catalogs()}
    times = [each for each in now.values() if each]
    if isinstance(service.service.catalog_source, NamedCatalogs):
        raise NotAskedError("the catalogs are named, and no time of them is asked for.")
    if not times:
        return Seen(False, "the service does not say when a catalog was indexed.")
    moved = [key for key in before.keys() & now.keys() if before[key] != now[key]]
    said = f"{len(moved)} of {len(before)} times moved between two requests."
    if path := shop_path(service.service.base_url):
        said += f" Shops are described at {path}."
    present = datetime.now(UTC)
    if not moved and all((present - each).total_seconds() < _MIN_AGE_SECONDS for each in times):
        said = "every time is of this minute, as if it were the time of the request: ask again."
        return Seen(False, said)
    return Seen(not moved, said, ", ".join(sorted(moved)))


@_question("counts by category", "the estimates of searches, docs/costs.md")
def _counts(service: Service) -> Seen:
    """The numbers of products by category add up to `productCount` at most."""
    service.require_current()
    count, catalog = service.count(), service.require_catalog().catalog
    counted = service.client.count_products(SearchFilters(), [catalog])
    said = f"the categories have {counted:,} products together, and the catalog {count:,}."
    return Seen(counted <= count, said, catalog)


@_question("fields of a page", "columns, docs/snapshots.md; please report it", walk=1)
def _page_fields(service: Service) -> Seen:
    """A page has the documented fields in the documented types; new ones are only counted."""
    page = service.walk(1)[0]
    new = sorted(
        {name for item in page.items for name in item.model_extra or ()}
        | {f"page.{name}" for name in page.model_extra or ()}
    )
    of_new = f"fields that are new: {', '.join(new)}." if new else "no new field."
    aliases = {
        field.alias or name: name for name, field in MerchantProductListItem.model_fields.items()
    }
    absent = [
        alias
        for alias in _ALWAYS_SENT
        if all(getattr(item, aliases[alias]) is None for item in page.items)
    ]
    if absent:  # each may be null, and is of no product if the shop does not say it
        return Seen(None, f"no product of a page has {', '.join(absent)}; {of_new}")
    said = f"{len(page.items)} products, each with an identity and the documented types; {of_new}"
    return Seen(True, said)


def _pages_of_catalog(service: Service) -> int:
    pages = max(1, -(-service.count() // PAGE_SIZE))
    if pages > _MAX_PAGES:
        raise NotAskedError(
            f"the smallest catalog has {service.count():,} products, and at most "
            f"{_MAX_PAGES * PAGE_SIZE} are counted: name a smaller shop."
        )
    return pages


def _charged_count(service: Service) -> Charged:
    pages = _pages_of_catalog(service)
    service.require_money(max(0, pages - len(service.pages)))
    return Charged(walk=pages)


@_question("unit of the count", "costs that are estimated, docs/costs.md", _charged_count)
def _count(service: Service) -> Seen:
    """A catalog has at least as many rows as `productCount`, which may count groups of rows."""
    pages = service.walk(_charged_count(service).walk)
    count, catalog = service.count(), service.require_catalog().catalog
    rows, has_more = len({uuid for page in pages for uuid in page.uuids}), pages[-1].next_cursor
    if rows < count and has_more:
        raise NotAskedError(f"{len(pages)} pages have {rows:,} of {count:,} products.")
    said = f"{'at least ' if has_more else ''}{rows:,} rows where {count:,} are counted"
    if rows < count:
        return Seen(False, f"{said}: the search lists fewer than are counted.", catalog)
    is_of_rows = rows == count and not has_more
    unit = "rows" if is_of_rows else "groups of products, which may have several rows"
    return Seen(True, f"{said}: it counts {unit}.", catalog)


@_question("next page", "every read of more than one page; please report it", walk=_WALKED_PAGES)
def _next_page(service: Service) -> Seen:
    """A cursor leads on: a page has few products of those before, and no cursor comes again."""
    first, *later = service.walk(_WALKED_PAGES)
    if not later:
        raise NotAskedError("the search has one page.")
    cursors, before, repeats = {first.next_cursor}, set(first.uuids), 0
    for number, page in enumerate(later, 2):
        if page.next_cursor in cursors:
            return Seen(False, f"the cursor of page {number} is that of an earlier one: a loop.")
        repeated = len(before & set(page.uuids))
        if repeated >= max(1, len(page.items)) / 2:
            said = f"{repeated} of its {len(page.items)} products were on a page before."
            return Seen(False, f"page {number}: {said}")
        cursors.add(page.next_cursor)
        before.update(page.uuids)
        repeats += repeated
    return Seen(True, f"{repeats} products of {len(later)} pages were on a page before.")


@_question("size of a page", "costs that are estimated, docs/costs.md", walk=1)
def _page_size(service: Service) -> Seen:
    """A page has the 100 products that are asked for, unless it is the last one."""
    sizes = [(len(page.items), page.next_cursor) for page in service.walk(1)]
    odd = [size for size, has_next in sizes if size > PAGE_SIZE or (has_next and size < PAGE_SIZE)]
    if odd:
        return Seen(False, f"{PAGE_SIZE} products were asked for, and {odd[0]:,} came.")
    return Seen(True, f"{PAGE_SIZE} products were asked for, and as many came, or the last ones.")


@_question("catalog of products", "the column `catalog_key`; please report it", walk=1)
def _catalog_of_products(service: Service) -> Seen:
    """Each product is of the catalog that is searched, and says so."""
    service.require_current()
    catalog, items = service.require_catalog().catalog, service.items()
    named = [item.catalog_key for item in items if item.catalog_key]
    if not named:
        return Seen(None, "no product names its catalog.")
    others = {key for key in named if key != catalog}
    number = sum(key in others for key in named)
    said = f"{number:,} of {len(items):,} products are of another catalog."
    return Seen(not others, said, ", ".join(sorted(others)))


@_question("brands and prices", "alerts, positions and checks, which leave out the rest", walk=1)
def _brands_and_prices(service: Service) -> Seen:
    """At least half of the products have a brand, a price and a currency."""
    items = service.items()
    brands = sum(bool(item.brand and item.brand.name) for item in items)
    prices = sum(bool(item.current_price) for item in items)
    known, every = [brands, prices], len(items)
    said = f"of {every:,} products {every - brands:,} have no brand, {every - prices:,} no price"
    if service.generation == "current":
        currencies = Counter(item.currency for item in items if item.currency)
        known.append(sum(currencies.values()))
        named = "".join(f", {count:,} in {name}" for name, count in currencies.most_common(5))
        said += f"{named}, {every - known[-1]:,} no currency"
    return Seen(True if min(known) >= every / 2 else None, f"{said}.")


@_question("made-up cursor", "reads that are resumed; please report it", walk=1, pages=1)
def _made_up_cursor(service: Service) -> Seen:
    """A cursor that the service does not know is answered with page 1, and is no error."""
    first = service.walk(1)[0]
    cursor = f"octogen-doctor-{secrets.token_hex(8)}"
    try:
        page = service.search(limit=PAGE_SIZE, cursor=cursor)
    except OctogenAPIError as error:
        if error.status_code not in _REFUSED_CURSOR:
            raise
        return Seen(False, f"a {error.status_code}.", str(error))
    same = len(set(first.uuids).intersection(page.uuids))
    is_first = same >= len(first.items) / 2
    service.after_made_up_cursor = page, is_first
    return Seen(is_first, f"{same} of its {len(page.items)} products are those of page 1.")


@_question("repeated first page", "reads without a time of indexing; please report it", walk=1)
def _repeated_page(service: Service) -> Seen:
    """A first page that is requested again has the same products in the same order."""
    first = service.walk(1)[0]
    if service.after_made_up_cursor is None:  # it was refused, which is free
        again = service.search(limit=PAGE_SIZE)
    else:
        again, is_first = service.after_made_up_cursor
        if not is_first:
            raise NotAskedError("a made-up cursor was answered with another page.")
    same = sum(a == b for a, b in zip(first.uuids, again.uuids, strict=False))
    said = f"{same} of {len(first.items)} products at the same place."
    return Seen(first.uuids == again.uuids, said)


@_question("unknown catalog", "snapshots that do not shrink to nothing, docs/catalogs.md", pages=1)
def _unknown_catalog(service: Service) -> Seen:
    """A key that matches no catalog finds nothing: no error today, a 404 in the older contract."""
    unknown = f"octogen-doctor-{secrets.token_hex(8)}"
    try:
        page = service.search(catalog=unknown, limit=1)
    except OctogenNotFoundError as error:
        return Seen(
            service.generation == "seed" and error.detail == "catalog_not_found",
            "a 404 that says so.",
        )
    found = len(page.items)
    said = f"200 and {found} products." if found else "200 and no products."
    return Seen(not found and service.generation == "current", said)


@_question("known product", "details, docs/changes-and-details.md", walk=1, lookups=1)
def _known_product(service: Service) -> Seen:
    """A strict lookup of the address of a product that a search lists finds that product."""
    item = service.items()[0]
    try:
        found = service.client.lookup_product(item.product_url)
    except OctogenNotFoundError:
        return Seen(False, "a 404 for the address of a product that a search lists.")
    if found.source not in (None, "indexed"):
        return Seen(False, f"a product whose source is {found.source!r}, and not the index.")
    if found.product.uuid == item.uuid:
        return Seen(True, "the product that the search lists.")
    # Several catalogs may have the same page, each with a product of its own.
    is_elsewhere = found.catalog_key not in (None, item.catalog_key or service.only_catalog)
    said = "another catalog's product of the same page." if is_elsewhere else "another product."
    return Seen(is_elsewhere, said, item.product_url)


@_question("unknown product", "details, docs/changes-and-details.md", walk=1, lookups=1)
def _unknown_product(service: Service) -> Seen:
    """A lookup in the index only of an address that is not in it is a 404, which is free."""
    host = urlsplit(service.items()[0].product_url).hostname or "example.com"
    url = f"https://{host}/octogen-doctor-{secrets.token_hex(8)}"
    try:
        found = service.client.lookup_product(url)
    except OctogenNotFoundError:
        return Seen(True, "a 404, which is free.")
    return Seen(False, f"a product, whose source is {found.source!r}; it is charged.")


@_question("keywords as written", "`understand`, docs/searches.md", pages=1)
def _as_written(service: Service) -> Seen:
    """With `understand: false` the keywords are matched as written, and no filter is derived."""
    service.require_current()
    page = service.search(q=_KEYWORDS, understand=False, limit=1)
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
    if query.get("text") != _KEYWORDS:
        return Seen(False, f"{query.get('text')!r} was matched in place of {_KEYWORDS!r}.")
    return Seen(True, "the keywords were matched as they are written.")


def _pages_of_split(service: Service) -> int:
    """The most pages of both parts: a part may end with a page that is not full."""
    try:
        return 1 + _pages_of_catalog(service)
    except NotAskedError:
        return 2


@_question(
    "facet and its exclusion",
    "`max_extra_pages_percent=0`, which reads each catalog in one walk, docs/searches.md",
    lambda service: Charged(walk=1, pages=_pages_of_split(service)),
)
def _brand_split(service: Service) -> Seen:
    """Brands as a facet and as an excluded one split a catalog: each product is in one part."""
    service.require_current()
    most = _pages_of_split(service)
    service.require_money(2)
    items, catalog = service.items(), service.catalog
    names = Counter(item.brand.name for item in items if item.brand and item.brand.name)
    # What a shop calls a brand need not be the canonical name, by which a facet finds it.
    canonical = [name for name, _ in (catalog.brands if catalog else ())[:_BRANDS]]
    brands = list(dict.fromkeys([*canonical, *(name for name, _ in names.most_common(_BRANDS))]))
    if not brands:
        raise NotAskedError("no product of the first page has a brand.")
    facets = [{"name": "brand_name", "values": brands}]
    chosen, read, has_chosen = service.search_all(most - 1, facets=facets)
    others, _, has_others = service.search_all(most - read, exclude_facets=facets)
    details = ", ".join(brands)
    if not chosen:
        return Seen(False, "the most frequent brands find nothing as a facet.", details)
    said = f"{len(chosen):,} products with the brands and {len(others):,} without them"
    if not (has_chosen and has_others):
        said += ", on the pages that were read"
    if both := len(chosen & others):
        return Seen(False, f"{said}; {both:,} are in both parts.", details)
    # If the first part is not read to its end, only products without a brand are not in it.
    known = {item.uuid for item in items if has_others and (has_chosen or not item.brand)}
    missing = len(known - chosen - others)
    said += f"; {missing:,} that are listed are in neither." if missing else "; none is in both."
    return Seen(not missing, said, details)


@_question("without a key", "nothing that this package does: it never asks without a key")
def _without_a_key(service: Service) -> Seen:
    """A search without a key is refused, or is the trial that Octogen documents."""
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
            return Seen(False, "a 200 that is no page of a search.", str(error))
        return Seen(True, "the trial answers: a search without a key is a 200.")
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return Seen(True, "the trial answers, and its requests of today are used up (429).")
    is_refused = status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
    said = f"a search without a key is refused ({status})." if is_refused else f"a {status}."
    return Seen(is_refused, said)


@_question("URL lists", "URL lists, docs/url-lists.md")
def _url_lists(service: Service) -> Seen:
    """Organisations may upload lists of product addresses."""
    service.require_current()
    try:
        service.client.list_coverage_url_lists(limit=1)
    except OctogenNotFoundError:
        raise NotAskedError("they are not open to this organisation (404).") from None
    return Seen(True, "they are open to this organisation.")


def _charged_later(service: Service) -> Charged:
    if not service.before:
        raise NotAskedError("it compares with the report of an earlier day: give --compare.")
    return Charged(walk=1)


def _now_and_before(service: Service) -> tuple[Evidence, Evidence]:
    service.walk(_charged_later(service).walk)
    now, before = service.evidence(), service.before
    assert now
    assert before
    if now["catalog"] != before["catalog"]:
        raise NotAskedError("the earlier report is of another catalog: give --host as it was.")
    return now, before


@_question(
    "time of indexing, later",
    "what the catalog sensor reads again, docs/catalogs.md",
    _charged_later,
)
def _time_moves(service: Service) -> Seen:
    """The time at which a catalog was indexed moves with an index run only."""
    now, before = _now_and_before(service)
    if not (now["indexed_at"] and before["indexed_at"]):
        raise NotAskedError("the service does not say when the catalog was indexed.")
    if now["indexed_at"] == before["indexed_at"]:
        return Seen(True, f"it is the time of {before['at']}.")
    if now["content"] != before["content"]:
        return Seen(True, f"it moved since {before['at']}, and the first page changed.")
    said = f"it moved since {before['at']}, and the first page is the same in every field."
    return Seen(None, said)


@_question("first page, later", "reads that are resumed; please report it", _charged_later)
def _order_stays(service: Service) -> Seen:
    """The order of a first page stays until the catalog is indexed again."""
    now, before = _now_and_before(service)
    pairs = zip(now["products"], before["products"], strict=False)
    said = f"{sum(a == b for a, b in pairs)} of {len(now['products'])} products at the same place"
    said += f" as {before['at']}"
    if now["products"] == before["products"]:
        return Seen(True, f"{said}.")
    if not now["indexed_at"]:
        return Seen(None, f"{said}; whether the catalog was indexed since is not known.")
    is_indexed = now["indexed_at"] != before["indexed_at"]
    when = "was indexed since" if is_indexed else "was not indexed since"
    return Seen(is_indexed, f"{said}; the catalog {when}.")
