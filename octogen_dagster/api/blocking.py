"""BlockingClient: drives flows in the calling thread, on libcurl."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import threading
import time
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from typing import TYPE_CHECKING, Concatenate, Self

from typing_extensions import ParamSpec, Unpack

from octogen_dagster.api import http
from octogen_dagster.api.catalog_states import parsed_catalog_list
from octogen_dagster.api.credentials import may_use_proxy
from octogen_dagster.api.flow import (
    CATALOGS,
    Flow,
    RequestStatistics,
    Send,
    T,
    Wait,
    catalogs_flow,
    count_flow,
    lookup_flow,
    me_flow,
    page_flow,
    product_flow,
    search_flow,
)
from octogen_dagster.api.http import (
    BodyTooLargeError,
    Request,
    Response,
    TransportError,
    TransportTimeoutError,
    is_cut_off,
    parsed_headers,
)
from octogen_dagster.api.search import SearchArguments, SearchRequest
from octogen_dagster.api.service import HEADERS, Service
from octogen_dagster.api.url_lists import (
    add_urls_flow,
    check_urls_flow,
    create_url_list_flow,
    delete_url_list_flow,
    list_urls_flow,
    remove_urls_flow,
    url_list_flow,
    url_lists_flow,
)
from octogen_dagster.background import StoppedError, submit, wait_interruptibly

if TYPE_CHECKING:
    import pycurl

    from octogen_dagster.api.catalog_states import CatalogList
    from octogen_dagster.api.models import MerchantProductListPage
    from octogen_dagster.api.paging import PageT, PageTracker
    from octogen_dagster.api.spending import Charge

P = ParamSpec("P")

_POLL_SECONDS = 0.2
_PAUSE_SECONDS = 0.01
_MAX_SECONDS = 1e6
_MAX_AT_ONCE = 16
_BUFFER_BYTES = 512 << 10  # what libcurl reads at once: fewer callbacks for each page


def _driven(
    flow: Callable[Concatenate[Service, P], Flow[T]],
) -> Callable[Concatenate[BlockingClient, P], T]:
    """Return the method that drives a flow of the client's service."""

    @functools.wraps(flow)
    def drive(self: BlockingClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.run(flow(self.service, *args, **kwargs))

    return drive


class BlockingClient:
    """Sends the requests of one thread over one connection, which stays open.

    A request costs a twentieth of the CPU time that it takes on httpx (measured). Once `stop` is
    set, requests and waits end within a second with a `StoppedError`; in the main thread an
    interrupt ends them at once. Once `ends` is set, waits do, and requests under way do not. `poll`
    is called while the client waits, and what it raises ends the wait too.

    Proxies and certificates come from the environment, as with httpx: from `HTTPS_PROXY`,
    `ALL_PROXY` and `NO_PROXY`, and from `SSL_CERT_FILE`, `SSL_CERT_DIR` or else certifi. Plain
    http, which stays on this machine, uses no proxy.

    Its operations have the names and the arguments of those of `OctogenClient`.
    """

    def __init__(
        self,
        service: Service,
        stop: threading.Event | None = None,
        poll: Callable[[], object] = lambda: None,
        *,
        ends: threading.Event | None = None,
    ) -> None:
        self.service = service
        self.stop = stop or threading.Event()
        self.statistics = RequestStatistics()
        self._poll = poll
        self._ends = ends or self.stop
        self._polled_at = time.monotonic()
        self._curl: pycurl.Curl | None = None
        self._multi: pycurl.CurlMulti | None = None
        self._may_hang = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection, or leave it to the next client of the service if that keeps it."""
        if self._curl is not None and self._multi is not None:
            if self.service.idle is not None and not self._may_hang:
                self.service.idle.append((self._curl, self._multi))
                self._curl = self._multi = None
                return
            self._curl.close()
            if self._may_hang:  # libcurl waits for a name server, for as long as that takes
                submit(self._multi.close, "octogen-close")
            else:
                self._multi.close()
            self._curl = self._multi = None

    def run(self, flow: Flow[T]) -> T:
        """Drive a flow to its end and return its value."""
        answer: Response | TransportError | None = None
        with contextlib.closing(flow):
            while True:
                try:
                    step = flow.send(answer)
                except StopIteration as end:
                    value: T = end.value
                    return value
                self.statistics.record(step)
                answer = None
                if isinstance(step, Send):
                    answer = self._send(step)
                else:
                    self._wait(step)

    def run_all(self, flows: Sequence[Flow[T]]) -> list[T]:
        """Drive several flows at once, in threads with a connection each; a single one here."""
        if len(flows) <= 1:
            return [self.run(flow) for flow in flows]
        waiting = deque(enumerate(flows))
        values: dict[int, T] = {}
        ended = threading.Event()

        def drive() -> None:
            with BlockingClient(self.service, ended) as client:
                while waiting:
                    try:
                        place, flow = waiting.popleft()
                    except IndexError:  # another thread took the last one
                        return
                    values[place] = client.run(flow)

        threads = [submit(drive, "octogen-call") for _ in range(min(len(flows), _MAX_AT_ONCE))]
        try:
            for thread in threads:
                wait_interruptibly(thread, poll=self.check)
                thread.result()
        except BaseException:
            waiting.clear()
            ended.set()
            raise
        return [values[place] for place in range(len(flows))]

    def check(self) -> None:
        """Return if the work may go on; else raise `StoppedError`, or what `poll` raises."""
        if self.stop.is_set():
            raise StoppedError
        if (now := time.monotonic()) - self._polled_at >= _POLL_SECONDS:
            self._polled_at = now
            self._poll()

    def page(
        self,
        request: SearchRequest,
        subject: str,
        number: int,
        read_page: Callable[[Response, str], PageT],
    ) -> PageT:
        """Read one page of a bulk read, which obeys the rate limiter."""
        flow = search_flow(self.service, request.body(), subject, paced=True)
        return read_page(self.run(flow), f"{subject}, page {number},")

    def pages(
        self,
        request: SearchRequest,
        tracker: PageTracker,
        read_page: Callable[[Response, str], PageT],
    ) -> Iterator[PageT]:
        """Read all pages of a search, in the order that the tracker checks.

        The caller must tell the tracker's `deduplicated` how many products of a page were new.
        """
        body = request.body()
        while True:
            subject = f"{tracker.subject}, page {tracker.pages + 1},"
            flow = search_flow(self.service, body, tracker.subject, paced=True)
            page = read_page(self.run(flow), subject)
            tracker.page_received(page)
            yield page
            if not page.next_cursor:
                return
            body["cursor"] = page.next_cursor

    def lookup(self, url: str, read_lookup: Callable[[Response, str], T]) -> T:
        """Look up a product as one of many, which obey the rate limiter."""
        return self.run(lookup_flow(self.service, url, read_lookup, paced=True))

    def search_products(self, **arguments: Unpack[SearchArguments]) -> MerchantProductListPage:
        """Read one page of a search."""
        return self.run(page_flow(self.service, SearchRequest.of(**arguments)))

    def list_catalog_states(self) -> CatalogList:
        """List what is known of the catalogs that are granted to the key."""
        return parsed_catalog_list(self.run(catalogs_flow(self.service)), CATALOGS)

    lookup_product = _driven(product_flow)
    get_me = _driven(me_flow)
    count_products = _driven(count_flow)
    create_coverage_url_list = _driven(create_url_list_flow)
    list_coverage_url_lists = _driven(url_lists_flow)
    get_coverage_url_list = _driven(url_list_flow)
    delete_coverage_url_list = _driven(delete_url_list_flow)
    add_coverage_url_list_urls = _driven(add_urls_flow)
    remove_coverage_url_list_urls = _driven(remove_urls_flow)
    check_coverage_url_list_urls = _driven(check_urls_flow)
    list_coverage_url_list_urls = _driven(list_urls_flow)

    def _wait(self, step: Wait) -> None:
        ends_at = time.monotonic() + step.seconds
        while not (step.until and step.until.done()):
            self.check()
            if self._ends.is_set():
                raise StoppedError
            left = ends_at - time.monotonic()
            if left <= 0:
                return
            if step.until:
                wait([step.until], min(left, _POLL_SECONDS))
            else:
                self.stop.wait(min(left, _POLL_SECONDS))

    def _send(self, step: Send) -> Response | TransportError:
        """Send a request; the answer has no API key in it."""
        import pycurl

        self.check()
        if self._curl is None:
            try:
                self._curl, self._multi = (self.service.idle or []).pop()
            except IndexError:
                self._curl, self._multi = self._handle(), pycurl.CurlMulti()
        curl, lines = self._curl, list[bytes]()
        body = _Body()
        curl.setopt(pycurl.URL, step.request.url)
        curl.setopt(pycurl.TIMEOUT_MS, max(1, int(min(step.seconds, _MAX_SECONDS) * 1000)))
        if step.request.content is None:
            curl.setopt(pycurl.HTTPGET, 1)
        else:
            content = _Content(step.request.content, step.charge)
            curl.setopt(pycurl.POST, 1)
            curl.setopt(pycurl.POSTFIELDSIZE, len(step.request.content))
            curl.setopt(pycurl.READFUNCTION, content.read)
        curl.setopt(pycurl.CUSTOMREQUEST, step.request.method)  # the handle keeps it
        curl.setopt(pycurl.WRITEFUNCTION, body.write)
        curl.setopt(pycurl.HEADERFUNCTION, lines.append)
        # After half a head libcurl keeps the connection, although it is closed.
        curl.setopt(pycurl.FRESH_CONNECT, self._may_hang)
        self._may_hang = True
        try:
            failure, reason = self._perform(curl)
        finally:  # also after an interrupt
            head = _head(curl.getinfo(pycurl.RESPONSE_CODE), lines, step.request)
            if head is not None:
                step.charge.response_begun(head)
        if not failure and head is not None:
            self._may_hang = False
            received = body.getvalue()
            body.close()  # the handle keeps it until the next request
            if not is_cut_off(head.headers, received):
                response = Response(head.status_code, head.headers, received, step.request)
                return self.service.api_key.redacted(response)
            reason = "the connection was closed in the middle of the body"
        elif not failure:
            reason = "the connection was closed in the middle of the headers"
        elif failure == pycurl.E_OPERATION_TIMEDOUT:
            return TransportTimeoutError(reason)
        elif failure == pycurl.E_SEND_FAIL_REWIND:
            reason = "the connection was closed before a response"
        if head is not None and (body.is_too_large or failure == pycurl.E_FILESIZE_EXCEEDED):
            return BodyTooLargeError(self.service.api_key.redacted(head))
        return TransportError(self.service.api_key.masked(reason))

    def _perform(self, curl: pycurl.Curl) -> tuple[int, str]:
        """Transfer a request and its response, and look at the stop meanwhile."""
        multi = self._multi
        assert multi is not None
        multi.add_handle(curl)
        try:
            while multi.perform()[1]:
                if multi.select(_POLL_SECONDS) < 0:  # there is nothing to wait for yet
                    self.stop.wait(_PAUSE_SECONDS)
                self.check()
            failed = multi.info_read()[2]
        finally:
            multi.remove_handle(curl)
        return (failed[0][1], failed[0][2]) if failed else (0, "")

    def _handle(self) -> pycurl.Curl:
        """Make a handle that keeps one connection open. The key is in no other object."""
        import certifi
        import pycurl

        curl = pycurl.Curl()
        lines = [f"{name}: {value}" for name, value in HEADERS.items()]
        key = self.service.api_key
        # No local has the key, which a traceback might show. `Expect` would cost a round trip.
        curl.setopt(pycurl.HTTPHEADER, [*lines, "Expect:", f"Authorization: {key.authorization}"])
        curl.setopt(pycurl.ACCEPT_ENCODING, "")  # all that libcurl can decompress
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.PATH_AS_IS, 1)
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        # Otherwise libcurl may end the search for a host by a signal to the whole process.
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.BUFFERSIZE, _BUFFER_BYTES)
        curl.setopt(pycurl.MAXFILESIZE_LARGE, http.MAX_BODY_BYTES)
        # Unset, libcurl would look for both in the environment, by other rules than httpx.
        curl.setopt(pycurl.PROXY, _proxy(self.service.base_url))
        curl.setopt(pycurl.NOPROXY, "")
        file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
        if folder and not file:
            curl.setopt(pycurl.CAPATH, folder)
        else:
            curl.setopt(pycurl.CAINFO, file or certifi.where())
        return curl


class _Content(io.BytesIO):
    """The content of a request, which libcurl can read once.

    Otherwise, when a connection that was kept open ends before a response, libcurl sends the
    request again over a new one, and the service may charge both.
    """

    def __init__(self, content: bytes, charge: Charge) -> None:
        super().__init__(content)
        self._charge = charge

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes, which libcurl wants when it is connected."""
        self._charge.is_sent = True
        return super().read(size)


class _Body(io.BytesIO):
    """A body as it comes, decompressed, up to the largest size."""

    is_too_large = False

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Take some bytes; a return of fewer than there were ends the request."""
        if self.tell() + len(data) > http.MAX_BODY_BYTES:
            self.is_too_large = True
            return 0
        return super().write(data)


def _proxy(url: str) -> str:
    """Return the address of the environment's proxy for a URL; empty if there is none."""
    host = urllib.parse.urlsplit(url).hostname or ""
    if not may_use_proxy(url) or urllib.request.proxy_bypass(host):
        return ""
    proxies = urllib.request.getproxies()
    return proxies.get("https") or proxies.get("all") or ""


def _head(status: int, lines: Sequence[bytes], request: Request) -> Response | None:
    """Return the response without its body; None if its headers are not complete.

    The lines of a proxy's tunnel and of interim responses come before those of the response, and
    its trailers after them.
    """
    if status < 200:
        return None
    status_lines = [place for place, line in enumerate(lines) if line[:5].upper() == b"HTTP/"]
    begin = max(status_lines, default=len(lines))
    fields: list[tuple[bytes, bytes]] = []
    for line in lines[begin + 1 :]:
        if not line.strip():
            return Response(status, parsed_headers(fields), request=request)
        name, _, value = line.partition(b":")
        fields.append((name.strip(), value.strip()))
    return None
