"""The organization's coverage URL lists, including their URLs and their status."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from threading import Lock
from typing import Annotated, Any, Literal, TypeVar

from fastapi import HTTPException, Request
from pydantic import Field

from octogen_dagster.sandbox.catalog import Catalogs
from octogen_dagster.sandbox.exports import PRODUCTS, Export, View, export
from octogen_dagster.sandbox.listings import EXCHANGE_ID, Listings
from octogen_dagster.sandbox.models import UrlListRequest, UrlsRequest

Json = dict[str, Any]

_MAX_LISTS = 5
_MAX_URLS = 100_000
_ID_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_URL = re.compile(
    r"https?://(?P<host>[^\s/?#@:.]+(?:\.[^\s/?#@:.]+)+)(?P<port>:\d+)?(?P<path>(?:/[^\s?#]*)?)"
    r"(?:\?(?P<query>[^\s#]*))?(?:#\S*)?",
    re.IGNORECASE,
)
_TRACKING = re.compile(
    r"(utm_[^=]*|[a-z]*clid|gclsrc|gbraid|wbraid|mc_[ce]id|igshid)(=|$)", re.IGNORECASE
)

_Item = TypeVar("_Item")
_PageSize = Annotated[int, Field(ge=1, le=100)]


def normalize(url: str) -> str | None:
    """Return the normalized URL that identifies a list member, or None for an invalid URL."""
    found = _URL.fullmatch(url)
    if found is None:
        return None
    port = "" if found["port"] in (None, ":80", ":443") else found["port"]
    kept = [each for each in (found["query"] or "").split("&") if not _TRACKING.match(each)]
    query = f"?{'&'.join(kept)}" if any(kept) else ""
    return f"https://{found['host'].lower()}{port}{found['path'].rstrip('/')}{query}"


@dataclass(frozen=True)
class Member:
    """A URL in a list, in the form in which it was first submitted."""

    url: str
    normalized: str
    added_at: datetime
    serial: int  # increases with each added URL

    def as_json(self) -> Json:
        return {"url": self.url, "normalizedUrl": self.normalized, "addedAt": self.added_at}


@dataclass
class UrlList:
    """A URL list. At `due_at`, a new list becomes active, and a deleted list disappears."""

    id: str
    serial: int
    name: str
    created_at: datetime
    updated_at: datetime
    due_at: float
    status: Literal["provisioning", "active", "delete_pending"] = "provisioning"
    is_shared: bool = False
    export: Export | None = None
    members: dict[str, Member] = field(default_factory=dict)  # by normalized URL, in order

    @property
    def listing_id(self) -> str:
        return f"coverage_{self.id}_v1"

    def views(self) -> Mapping[str, View]:
        return self.export.views if self.export else {}

    def as_json(self, readers: int) -> Json:
        return {
            "urlListId": self.id,
            "name": self.name,
            "status": self.status,
            "urlCount": len(self.members),
            "bigQuery": self._big_query(readers) if self.is_shared else None,
            "createdAt": self.created_at,
            "updatedAt": self.updated_at,
        }

    def _big_query(self, readers: int) -> Json:
        return {
            "exchangeId": EXCHANGE_ID,
            "listingId": self.listing_id,
            "sharedDatasetId": f"coverage_share_{self.id}_v1",
            "viewId": PRODUCTS,
            "lastExportedAt": self.export and self.export.exported_at,
            "lastRowCount": self.export and len(self.export.products),
            "readerCount": readers,
        }


class UrlLists:
    """All lists, protected by one lock. Methods raise an HTTPException to reject a request.

    After `seconds`, a new list becomes active, and a deleted list disappears. If there is a hub,
    active lists are shared over it.
    """

    def __init__(self, catalogs: Catalogs, hub: Listings | None, seconds: float) -> None:
        if not seconds >= 0:
            raise ValueError(f"url_list_seconds must be 0 or more, not {seconds}")
        self._catalogs = catalogs
        self._hub = hub
        self._seconds = seconds
        self._lock = Lock()
        self._list_serials, self._serials = count(1), count(1)
        self._lists: dict[str, UrlList] = {}  # by id, in order of creation

    def create(self, body: UrlListRequest) -> Json:
        name = body.name
        with self._settled():
            live = [each for each in self._lists.values() if each.status != "delete_pending"]
            if any(each.name == name for each in live):
                raise HTTPException(409, "url_list_name_conflict")
            if len(live) >= _MAX_LISTS:
                raise HTTPException(409, "url_list_limit_exceeded")
            now, due_at = _now(), time.monotonic() + self._seconds
            serial = next(self._list_serials)
            new = UrlList(_list_id(serial, name), serial, name, now, now, due_at)
            self._lists[new.id] = new
            return self._as_json(new)

    def page(self, cursor: str | None = None, limit: _PageSize = 50) -> Json:
        """Return a page of lists, newest first."""
        with self._settled():
            newest_first = list(reversed(self._lists.values()))
            shown, following = _page("", newest_first, lambda each: -each.serial, cursor, limit)
            return {"items": [self._as_json(each) for each in shown], "nextCursor": following}

    def get(self, list_id: str) -> Json:
        with self._settled():
            return self._as_json(self._find(list_id))

    def delete(self, list_id: str) -> Json:
        with self._settled():
            found = self._find(list_id)
            if found.status != "delete_pending":
                found.status, found.updated_at = "delete_pending", _now()
                if self._hub is not None and found.is_shared:
                    self._hub.revoke_access(found.listing_id)
                found.due_at = time.monotonic() + self._seconds
            return self._as_json(found)

    def add(self, list_id: str, body: UrlsRequest, request: Request) -> Json:
        with self._settled():
            found, now = self._find_to_change(list_id), _now()
            new: dict[str, Member] = {}
            for url in body.urls:
                key = normalize(url)
                if key is not None and key not in found.members and key not in new:
                    new[key] = Member(url, key, now, next(self._serials))
            if len(found.members) + len(new) > _MAX_URLS:
                raise HTTPException(409, "list_url_capacity_exceeded")
            if new:
                found.members.update(new)
                found.updated_at = now
            return _outcome(found, body.urls, request)

    def remove(self, list_id: str, body: UrlsRequest, request: Request) -> Json:
        with self._settled():
            found = self._find_to_change(list_id)
            gone = found.members.keys() & {normalize(url) for url in body.urls}
            for key in gone:
                del found.members[key]
            if gone:
                found.updated_at = _now()
            return _outcome(found, body.urls, request)

    def contains(self, list_id: str, body: UrlsRequest) -> Json:
        """Return for each URL, including invalid URLs, whether it is in the list."""
        with self._settled():
            members, results = self._find(list_id).members, []
            for url in body.urls:
                key = normalize(url) or url
                member = members.get(key)
                present = {"present": bool(member), "addedAt": member and member.added_at}
                results.append({"url": url, "normalizedUrl": key, **present})
            return {"results": results}

    def members(self, list_id: str, cursor: str | None = None, limit: _PageSize = 50) -> Json:
        """Return a page of a list's URLs, in the order in which they were added."""
        with self._settled():
            members = list(self._find(list_id).members.values())
            shown, following = _page(list_id, members, lambda each: each.serial, cursor, limit)
            return {"items": [each.as_json() for each in shown], "nextCursor": following}

    def next_day(self) -> None:
        """Complete all pending status changes, then export each list."""
        with self._settled(math.inf):
            for each in self._lists.values():
                urls = [(member.url, member.normalized) for member in each.members.values()]
                each.export, each.updated_at = export(urls, self._catalogs), _now()

    @contextmanager
    def _settled(self, moment: float | None = None) -> Iterator[None]:
        """Complete the status changes due at `moment`, by default now.

        Hold the lock during the block.
        """
        with self._lock:
            moment = time.monotonic() if moment is None else moment
            due = [each for each in self._lists.values() if each.due_at <= moment]
            for each in due:
                if each.status == "delete_pending":
                    del self._lists[each.id]
                    if self._hub is not None and each.is_shared:
                        self._hub.remove_url_list(each.listing_id)
                elif each.status == "provisioning":
                    each.status, each.is_shared, each.updated_at = "active", True, _now()
                    if self._hub is not None:
                        self._hub.share_url_list(each.listing_id, each.views)
            yield

    def _as_json(self, found: UrlList) -> Json:
        return found.as_json(len(self._hub.readers) if self._hub else 0)

    def _find(self, list_id: str) -> UrlList:
        if found := self._lists.get(list_id):
            return found
        raise HTTPException(404, "url_list_not_found")

    def _find_to_change(self, list_id: str) -> UrlList:
        found = self._find(list_id)
        if found.status == "delete_pending":
            raise HTTPException(409, "url_list_deleting")
        return found


def _outcome(changed: UrlList, urls: Sequence[str], request: Request) -> Json:
    """Return the result for each URL in a request that changed a list."""
    accepted, rejected = [], []
    for url in urls:
        key = normalize(url)
        if key is None:
            message = "The URL must be an http(s) URL with a dotted hostname."
            rejected.append({"url": url, "code": "invalid_url", "message": message})
        else:
            accepted.append({"url": url, "normalizedUrl": key})
    return {
        "accepted": accepted,
        "rejected": rejected,
        "urlCount": len(changed.members),
        "requestId": request.scope["received"].request_id,
    }


def _page(
    scope: str,
    items: Sequence[_Item],
    place_of: Callable[[_Item], int],
    cursor: str | None,
    limit: int,
) -> tuple[Sequence[_Item], str | None]:
    """Return the items on a page, and the cursor of the next page or None."""
    start = 0
    if cursor is not None:
        last = _decode_cursor(cursor, scope)
        start = 1 + bisect_left(items, last, key=place_of)
        if start > len(items) or place_of(items[start - 1]) != last:
            raise HTTPException(400, "invalid_cursor")
    shown = items[start : start + limit]
    if start + limit >= len(items):
        return shown, None
    content = json.dumps([scope, place_of(shown[-1])]).encode()
    return shown, base64.urlsafe_b64encode(content).decode()


def _decode_cursor(cursor: str, scope: str) -> int:
    try:
        found, last = json.loads(base64.urlsafe_b64decode(cursor))
    except (ValueError, TypeError):
        found, last = None, None
    if found != scope or not isinstance(last, int):
        raise HTTPException(400, "invalid_cursor")
    return last


def _list_id(serial: int, name: str) -> str:
    """Return an ID in the service's format. It depends only on the serial number and the name."""
    number = int.from_bytes(hashlib.sha256(f"{serial}\0{name}".encode()).digest()[:16], "big")
    return "cul_" + "".join(_ID_LETTERS[number >> shift & 31] for shift in range(125, -1, -5))


def _now() -> datetime:
    return datetime.now(UTC)
