"""Pages of every shape that the benchmarks measure are decoded alike, and none on a slower way."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone
from typing import Any

import pytest
from polars.testing import assert_frame_equal

from benchmarks.corpora import SHAPES
from benchmarks.source import Generation
from octogen_dagster.api.models import MerchantProductListPage
from octogen_dagster.frames import timestamps, wire
from octogen_dagster.frames.decode import PageDecoder
from octogen_dagster.frames.schema import PRODUCT_SCHEMA
from tests.frames.products import answer
from tests.frames.reference import decode_by_models
from tests.published import unknown_fields

BEGAN = datetime(2026, 11, 26, tzinfo=timezone.utc)


@pytest.mark.parametrize("generation", ["seed", "current"])
@pytest.mark.parametrize("name", SHAPES)
def test_a_page_of_any_shape_is_decoded_as_the_models_do_and_without_them(
    name: str, generation: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = SHAPES[name]
    items = list(shape.items(generation, 30))
    contents = [shape.encode({"items": items[begin : begin + 15]}) for begin in (0, 15)]
    expected = decode_by_models(contents, "acme", BEGAN)
    unknown: Counter[str] = Counter()
    for content in contents:
        unknown += unknown_fields(MerchantProductListPage.model_validate_json(content))
    monkeypatch.setattr(wire, "convert_page", _fail)
    monkeypatch.setattr(wire, "parsed", _fail)
    monkeypatch.setattr(timestamps, "utc_datetimes", _fail)

    decoder = PageDecoder(list(PRODUCT_SCHEMA), BEGAN)
    pages = [wire.read_page(answer(content), "Page") for content in contents]
    frame = decoder.decode(pages, "acme")

    assert_frame_equal(frame, expected)
    assert len(frame) == len(items)
    assert decoder.unknown_fields == unknown
    assert bool(unknown) == name.startswith("unknown")


def _fail(*_arguments: Any) -> None:
    pytest.fail("a page takes the slower way")
