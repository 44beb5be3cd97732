"""BlockingClient: the synchronous client, on libcurl."""

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
    Flow,
    RequestStatistics,
    Send,
    T,
    Wait,
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
from octogen_dagster.api.operations import (
    CATALOGS,
    catalogs_flow,
    count_flow,
    lookup_flow,
    me_flow,
    page_flow,
    product_flow,
    search_flow,
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
_BUFFER_BYTES = 512 << 10  # large reads need fewer callbacks per page


def _driven(
    flow: Callable[Concatenate[Service, P], Flow[T]],
) -> Callable[Concatenate[BlockingClient, P], T]:
    """Turn a request flow into a method of `BlockingClient`."""

    @functools.wraps(flow)
    def drive(self: BlockingClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.run(flow(self.service, *args, **kwargs))

    return drive


class BlockingClient:
    """A synchronous client with one persistent connection, for use in a single thread.

    Each request needs about a twentieth of the CPU time that httpx needs (measured). Once `stop` is
    set, requests and waits raise `StoppedError` within a second. An interrupt in the main thread
    ends requests and waits immediately. Once `ends` is set, waits end, but requests in flight still
    complete. The client calls `poll` regularly during requests and waits. If `poll` raises an
    exception, the request or wait ends.

    Proxies and certificates are configured with the same environment variables as in httpx:
    `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, `SSL_CERT_FILE` and `SSL_CERT_DIR`. By default,
    certificates come from certifi. Plain HTTP is allowed only for this machine and never uses a
    proxy.

    Methods have the same names and arguments as in `OctogenClient`.
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
        """Close the connection, or keep it for later requests if `service.idle` is set."""
        if self._curl is not None and self._multi is not None:
            if self.service.idle is not None and not self._may_hang:
                self.service.idle.append((self._curl, self._multi))
                self._curl = self._multi = None
                return
            self._curl.close()
            if self._may_hang:  # libcurl might wait for a name server indefinitely
                submit(self._multi.close, "octogen-close")
            else:
                self._multi.close()
            self._curl = self._multi = None

    def run(self, flow: Flow[T]) -> T:
        """Run a request flow and return its result."""
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
        """Run request flows concurrently. Each thread uses a separate connection.

        A single flow runs in the calling thread.
        """
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
                    except IndexError:  # another thread took the last flow
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
        """Raise `StoppedError` if `stop` is set. If not, call `poll` at most once every 0.2 s."""
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
        """Wait for the rate limit, then read one page of a search."""
        flow = search_flow(self.service, request.body(), subject, paced=True)
        return read_page(self.run(flow), f"{subject}, page {number},")

    def pages(
        self,
        request: SearchRequest,
        tracker: PageTracker,
        read_page: Callable[[Response, str], PageT],
    ) -> Iterator[PageT]:
        """Read all pages of a search, and wait for the rate limit before each page.

        The tracker checks each page. For each page, the caller must pass the numbers of new and
        repeated products to `tracker.deduplicated`.
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
        """Wait for the rate limit, then look up a product by its URL."""
        return self.run(lookup_flow(self.service, url, read_lookup, paced=True))

    def search_products(self, **arguments: Unpack[SearchArguments]) -> MerchantProductListPage:
        """Read one search page."""
        return self.run(page_flow(self.service, SearchRequest.of(**arguments)))

    def list_catalog_states(self) -> CatalogList:
        """List the catalogs granted to the API key."""
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
        """Send one request. The API key is masked in the result."""
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
        curl.setopt(pycurl.CUSTOMREQUEST, step.request.method)  # always, because handles are reused
        curl.setopt(pycurl.WRITEFUNCTION, body.write)
        curl.setopt(pycurl.HEADERFUNCTION, lines.append)
        # libcurl keeps a connection that was closed in the middle of the headers.
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
            body.close()  # the handle references it until the next request
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
        """Run one transfer and return libcurl's error code (0 for success) and message."""
        multi = self._multi
        assert multi is not None
        multi.add_handle(curl)
        try:
            while multi.perform()[1]:
                if multi.select(_POLL_SECONDS) < 0:  # no socket to wait for yet
                    self.stop.wait(_PAUSE_SECONDS)
                self.check()
            failed = multi.info_read()[2]
        finally:
            multi.remove_handle(curl)
        return (failed[0][1], failed[0][2]) if failed else (0, "")

    def _handle(self) -> pycurl.Curl:
        """Create a libcurl handle with the settings and headers that all requests share."""
        import certifi
        import pycurl

        curl = pycurl.Curl()
        lines = [f"{name}: {value}" for name, value in HEADERS.items()]
        key = self.service.api_key
        # Keep the key out of locals, because tracebacks might show them. `Expect` would cost a
        # round trip.
        curl.setopt(pycurl.HTTPHEADER, [*lines, "Expect:", f"Authorization: {key.authorization}"])
        curl.setopt(pycurl.ACCEPT_ENCODING, "")  # every encoding that libcurl supports
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.PATH_AS_IS, 1)
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        # Otherwise libcurl might use a process-wide signal to time out name resolution.
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.BUFFERSIZE, _BUFFER_BYTES)
        curl.setopt(pycurl.MAXFILESIZE_LARGE, http.MAX_BODY_BYTES)
        # If unset, libcurl reads both from the environment, with different rules than httpx.
        curl.setopt(pycurl.PROXY, _proxy(self.service.base_url))
        curl.setopt(pycurl.NOPROXY, "")
        file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
        if folder and not file:
            curl.setopt(pycurl.CAPATH, folder)
        else:
            curl.setopt(pycurl.CAINFO, file or certifi.where())
        return curl


class _Content(io.BytesIO):
    """A request body that libcurl can read only once.

    Otherwise, if a reused connection is closed before the response arrives, libcurl would resend
    the request over a new connection, and the service might charge for both requests.
    """

    def __init__(self, content: bytes, charge: Charge) -> None:
        super().__init__(content)
        self._charge = charge

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes. libcurl calls this method only after it has connected."""
        self._charge.is_sent = True
        return super().read(size)


class _Body(io.BytesIO):
    """A decompressed response body with a size limit."""

    is_too_large = False

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Append the data and return its length. Returning 0 makes libcurl abort the request."""
        if self.tell() + len(data) > http.MAX_BODY_BYTES:
            self.is_too_large = True
            return 0
        return super().write(data)


def _proxy(url: str) -> str:
    """Return the proxy that the environment defines for a URL, or an empty string."""
    host = urllib.parse.urlsplit(url).hostname or ""
    if not may_use_proxy(url) or urllib.request.proxy_bypass(host):
        return ""
    proxies = urllib.request.getproxies()
    return proxies.get("https") or proxies.get("all") or ""


def _head(status: int, lines: Sequence[bytes], request: Request) -> Response | None:
    """Return a response with only status and headers, or None if the headers are incomplete.

    `lines` can contain further headers. Headers from a proxy tunnel or an interim response come
    before the response's headers, and trailers come after them.
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
