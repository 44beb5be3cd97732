"""Made-up search pages for decoding: as a service sends them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from octogen_dagster.api.http import Response
from octogen_dagster.frames.decode import ProductPage, read_page
from tests.frames.scripted import page

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def answer(document: Any) -> Response:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Response(200, {"content-type": "application/json", "x-request-id": "r-1"}, content)


def wire_page(*uuids: str, next_cursor: str | None = None) -> ProductPage:
    """A checked page of products that have an address and nothing else."""
    return read_page(answer(page(*uuids, next_cursor=next_cursor)), "Page")


PRODUCT = {"uuid": "0b6c1f0e-0000-4000-8000-000000000001", "productUrl": "https://shop.example/1"}
