"""A service of the current generation whose answers are made from the published models."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from octogen_ai_sdk.generated.models import (
    MerchantProductListItem,
    ProgrammaticProductSearchEffectiveFacet,
    ProgrammaticProductSearchEffectiveQuery,
    ProgrammaticProductSearchPage,
    ProgrammaticProductSearchRequest,
)
from pydantic import ValidationError


@dataclass
class PublishedService:
    """Searches catalogs that a test may change; it has no list of them.

    Attributes:
        catalogs: The uuids of the products by catalog key. A key that is not here matches nothing.
        generated: The facets that an understood query generates, by name.
        searches: The bodies of the searches that were answered with 200.
    """

    catalogs: dict[str, list[str]]
    generated: dict[str, list[str]] = field(default_factory=dict)
    searches: list[dict[str, Any]] = field(default_factory=list)
    base_url: str = ""

    @contextmanager
    def running(self) -> Iterator[PublishedService]:
        """Serve on a free port while the block runs."""

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(handler) -> None:
                handler.answer(404, {"detail": "Not Found"})

            def do_POST(handler) -> None:
                body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
                known = handler.path == "/v1/products/search"
                handler.answer(*(self.search(body) if known else (404, {"detail": "Not Found"})))

            def answer(handler, status: int, content: Any) -> None:
                encoded = json.dumps(content).encode()
                handler.send_response(status)
                handler.send_header("content-type", "application/json")
                handler.send_header("content-length", str(len(encoded)))
                handler.end_headers()
                handler.wfile.write(encoded)

            def log_message(handler, *_: Any) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            self.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def search(self, body: dict[str, Any]) -> tuple[int, Any]:
        """Return the status and the body of the response to a search."""
        try:
            request = ProgrammaticProductSearchRequest.model_validate(body)
        except ValidationError as error:
            details = json.loads(error.json(include_url=False, include_context=False))
            return 422, {"detail": [{**each, "loc": ["body", *each["loc"]]} for each in details]}
        self.searches.append(body)
        keys = self.catalogs if request.catalogs is None else request.catalogs
        products = [(key, each) for key in keys for each in self.catalogs.get(key, ())]
        begin, limit = int(request.cursor or 0), request.limit or 50
        understood = bool(request.q) and request.understand is not False
        page = ProgrammaticProductSearchPage(
            items=[
                MerchantProductListItem(
                    uuid=each, product_url=f"https://{key}.example/{each}", catalog_key=key
                )
                for key, each in products[begin : begin + limit]
            ],
            next_cursor=str(begin + limit) if begin + limit < len(products) else None,
            request_id=str(uuid.uuid4()),
            effective_query=ProgrammaticProductSearchEffectiveQuery(
                text=request.q or "",
                understood=understood,
                catalogs=request.catalogs,
                facets=[
                    ProgrammaticProductSearchEffectiveFacet(
                        name=name, values=values, source="generated"
                    )
                    for name, values in (self.generated.items() if understood else ())
                ],
            ),
        )
        return 200, page.model_dump(mode="json", by_alias=True, exclude_none=True)
