"""Google Cloud Storage's XML API, as far as a client of objects uses it, in memory."""

from __future__ import annotations

import hashlib
import itertools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.api.servers import RawServer, Received, http

TOKEN = "ya29.test-token"


class Stored(NamedTuple):
    """An object."""

    content: bytes
    generation: int
    modified: datetime

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.content).hexdigest()}"'


class GoogleStorage:
    """Buckets and their objects. A request needs the bearer token `TOKEN`.

    Attributes:
        buckets: The objects by their names, by bucket.
        port: The port that it serves on.
    """

    def __init__(self) -> None:
        self.buckets: dict[str, dict[str, Stored]] = {}
        self.port = 0
        self._generations = itertools.count(1)
        self._uploads: dict[str, dict[int, bytes]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[GoogleStorage]:
        with RawServer(self._respond) as server:
            self.port = server.port
            yield self

    def _respond(self, request: Received) -> list[bytes]:
        if len(request.body) < int(request.headers.get("content-length") or 0):
            return []  # the client was cut off
        with self._lock:
            status, headers, content = self._answer(
                request.method, request.target, request.headers, request.body
            )
        return http(status, content, length=None, **headers)

    def _answer(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query, True).items()}
        bucket, _, name = unquote(url.path).lstrip("/").partition("/")
        if headers.get("authorization") != f"Bearer {TOKEN}":
            return 401, {}, b"<Error><Code>AuthenticationRequired</Code></Error>"
        if bucket not in self.buckets:
            return 404, {}, b"<Error><Code>NoSuchBucket</Code></Error>"
        objects = self.buckets[bucket]
        match method, name:
            case "GET", "":
                return 200, {}, self._listing(objects, query.get("prefix", ""))
            case "POST", _ if "uploads" in query:
                upload = str(next(self._generations))
                self._uploads[upload] = {}
                return (
                    200,
                    {},
                    _xml("InitiateMultipartUploadResult", f"UploadId>{upload}</UploadId"),
                )
            case "PUT", _ if "partNumber" in query:
                self._uploads[query["uploadId"]][int(query["partNumber"])] = body
                return 200, {"etag": '"part"'}, b""
            case "POST", _:
                parts = self._uploads.pop(query["uploadId"])
                return self._put(objects, name, b"".join(parts[n] for n in sorted(parts)))
            case "PUT", _ if source := headers.get("x-goog-copy-source"):
                other, _, source_name = unquote(source).lstrip("/").partition("/")
                if source_name not in self.buckets[other]:
                    return 404, {}, b"<Error><Code>NoSuchKey</Code></Error>"
                return self._put(objects, name, self.buckets[other][source_name].content)
            case "PUT", _:
                expected = headers.get("x-goog-if-generation-match")
                if expected and int(expected) != (name in objects and objects[name].generation):
                    return 412, {}, b"<Error><Code>PreconditionFailed</Code></Error>"
                return self._put(objects, name, body)
            case "DELETE", _ if "uploadId" in query:
                self._uploads.pop(query["uploadId"], None)
                return 204, {}, b""
        if name not in objects:
            return 404, {}, b"<Error><Code>NoSuchKey</Code></Error>"
        if method == "DELETE":
            del objects[name]
            return 204, {}, b""
        return _content(objects[name], headers.get("range"), is_head=method == "HEAD")

    def _put(
        self, objects: dict[str, Stored], name: str, content: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        put = objects[name] = Stored(content, next(self._generations), datetime.now(UTC))
        headers = {"etag": put.etag, "x-goog-generation": str(put.generation)}
        return 200, headers, _xml("CompleteMultipartUploadResult", f"ETag>{put.etag}</ETag")

    def _listing(self, objects: dict[str, Stored], prefix: str) -> bytes:
        found = "".join(
            f"<Contents><Key>{escape(name)}</Key><Size>{len(each.content)}</Size>"
            f"<LastModified>{each.modified:%Y-%m-%dT%H:%M:%S.%fZ}</LastModified>"
            f"<ETag>{each.etag}</ETag></Contents>"
            for name, each in sorted(objects.items())
            if name.startswith(prefix)
        )
        return f"<ListBucketResult>{found}</ListBucketResult>".encode()


def _xml(tag: str, inner: str) -> bytes:
    return f"<{tag}><{inner}></{tag}>".encode()


def _content(
    stored: Stored, wanted: str | None, *, is_head: bool
) -> tuple[int, dict[str, str], bytes]:
    content = stored.content
    headers = {
        "etag": stored.etag,
        "last-modified": format_datetime(stored.modified, usegmt=True),
        "x-goog-generation": str(stored.generation),
    }
    if is_head:
        return 200, {**headers, "content-length": str(len(content))}, b""
    if not (match := re.fullmatch(r"bytes=(\d*)-(\d*)", wanted or "")):
        return 200, headers, content
    if match[1]:
        begin, end = int(match[1]), min(int(match[2] or len(content)), len(content) - 1)
    else:
        begin, end = max(0, len(content) - int(match[2])), len(content) - 1
    headers["content-range"] = f"bytes {begin}-{end}/{len(content)}"
    return 206, headers, content[begin : end + 1]
