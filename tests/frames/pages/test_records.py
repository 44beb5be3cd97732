"""The format of `read.json`."""

from __future__ import annotations

import warnings
from datetime import datetime, timezone
from pathlib import Path

import msgspec
import pytest
from upath import UPath

from octogen_dagster.api.catalog_states import CatalogState
from octogen_dagster.api.search import Facet, ProductSearch
from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.pages.records import (
    ReadRecord,
    SavedCatalog,
    decode_record,
)
from octogen_dagster.frames.partition import parts_of
from octogen_dagster.frames.plan import Walk, split_by
from tests.frames.pages.samples import read_record

GOLDEN = Path(__file__).parents[2] / "golden"
SOMEWHERE = UPath("/data/.acme.pages/read.json")
SEARCH = ProductSearch(
    q="down jacket",
    facets=[Facet(name="brand_name", values=["Acme", "Zen"])],
    price_min=10.5,
    price_max=99.0,
    catalogs=["acme", "zen"],
    page_size=50,
    max_products=1_000,
)
RECORD = ReadRecord(
    base_url="https://api.example/v1",
    search=SEARCH.as_json(),
    catalogs=[
        SavedCatalog("acme", datetime(2026, 11, 25, 1, 2, 3, tzinfo=timezone.utc)),
        SavedCatalog("zen", datetime(2026, 11, 24, 23, 30, 0, 250_000, tzinfo=timezone.utc)),
    ],
    started_at=datetime(2026, 11, 25, 6, 0, 0, 500_000, tzinfo=timezone.utc),
)


def without_digest(record: ReadRecord) -> ReadRecord:
    return msgspec.structs.replace(record, digest="")


SPLIT_SEARCH = ProductSearch(catalogs=["acme", "zen"])
INDEXED_AT = datetime(2026, 11, 25, tzinfo=timezone.utc)
WHOLE = Walk(SPLIT_SEARCH.request("acme"), (CatalogState("acme", last_indexed_at=INDEXED_AT),))
ZEN = Walk(SPLIT_SEARCH.request("zen"), (CatalogState("zen"),))
FIRST, SECOND, REMAINDER = split_by(WHOLE, parts_of([["Acme", "靴下"], ["Strada"]]))
SPLIT = ReadRecord(
    base_url="https://api.example/v1",
    search=SPLIT_SEARCH.as_json(),
    catalogs=[SavedCatalog.of(each) for each in (REMAINDER, FIRST, ZEN, SECOND)],
    started_at=datetime(2026, 11, 25, 6, 0, tzinfo=timezone.utc),
)


class TestGoldenFiles:
    def test_a_read_record_of_an_earlier_version_is_read(self) -> None:
        path = UPath(GOLDEN / "read.json")
        record = decode_record(path.read_bytes(), path)
        assert without_digest(record) == RECORD
        assert record.product_search() == SEARCH

    def test_this_version_writes_them(self) -> None:
        assert RECORD.encoded() == (GOLDEN / "read.json").read_bytes()


class TestDecoding:
    def test_optional_fields_may_be_missing(self) -> None:
        whole = read_record().encoded()
        document = msgspec.json.decode(whole)
        del document["catalogs"][0]["last_indexed_at"]
        record = decode_record(msgspec.json.encode(document), SOMEWHERE)
        assert record.catalogs == [SavedCatalog("acme", None)]

    @pytest.mark.parametrize("version", [0, 2])
    def test_another_version_is_refused_whatever_else_it_holds(self, version: int) -> None:
        content = msgspec.json.encode({"version": version, "colour": "red"})
        with pytest.raises(
            OctogenSnapshotError,
            match=rf"read\.json has version {version}, .* reads 1: update octogen-dagster\.$",
        ):
            decode_record(content, SOMEWHERE)

    def test_a_record_without_a_version_is_refused(self) -> None:
        with pytest.raises(OctogenSnapshotError, match="has version 0"):
            decode_record(b"{}", SOMEWHERE)

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 1}', b"\xff"])
    def test_damage_is_an_error_that_names_the_file(self, content: bytes) -> None:
        with pytest.raises(
            OctogenSnapshotError, match=rf"{SOMEWHERE} is damaged \(.*\)\. Remove its folder"
        ):
            decode_record(content, SOMEWHERE)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("base_url", "https://other.example/v1"),
            ("started_at", "2026-11-25T06:00:01Z"),
            ("search", {"page_size": 3}),
            ("catalogs", []),
            ("digest", ""),
        ],
    )
    def test_a_field_that_was_changed_is_noticed(self, field: str, value: object) -> None:
        document = msgspec.json.decode(read_record().encoded())
        document[field] = value
        with pytest.raises(OctogenSnapshotError, match=r"is not what was written\. Remove its"):
            decode_record(msgspec.json.encode(document), SOMEWHERE)

    def test_an_unknown_field_is_damage(self) -> None:
        document = msgspec.json.decode(read_record().encoded())
        document["colour"] = "red"
        with pytest.raises(OctogenSnapshotError, match=r"is damaged .*colour"):
            decode_record(msgspec.json.encode(document), SOMEWHERE)


def test_a_search_that_this_version_does_not_know_is_an_error() -> None:
    record = msgspec.structs.replace(read_record(), search={"colour": "red"})
    with pytest.raises(
        OctogenSnapshotError, match=r"(?s)does not know: .*colour.*Update octogen-dagster\.$"
    ):
        record.product_search()


def test_a_search_whose_facets_an_earlier_version_took_can_be_continued() -> None:
    facets = [{"name": "gender", "values": ["women"]}, {"name": "sex", "values": ["f"]}]
    record = msgspec.structs.replace(read_record(), search={"facets": facets})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        request = record.product_search().request("acme")
    assert request.body()["facets"] == facets


@pytest.mark.parametrize("content", [b'{"version": 1, "base_url": "\xff"}', b"[" * 10_000])
def test_damage_of_any_kind_is_an_error_of_ours(content: bytes) -> None:
    with pytest.raises(OctogenSnapshotError, match="is damaged"):
        decode_record(content, SOMEWHERE)
