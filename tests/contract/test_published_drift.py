"""The drift watch names each change of the published contract, and nothing where none is."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contract.drift import differences, reduced, report
from tests.contract.published_drift import published_document

ITEM, REQUEST = "MerchantProductListItem", "ProgrammaticProductSearchRequest"


def properties(document: dict[str, Any], schema: str) -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["schemas"][schema]["properties"]
    return found


def removed(document: dict[str, Any]) -> None:
    del properties(document, ITEM)["currentPrice"]


def renamed(document: dict[str, Any]) -> None:
    fields = properties(document, "DomainCatalogCoverage")
    fields["indexedAt"] = fields.pop("computedAt")
    required = document["components"]["schemas"]["DomainCatalogCoverage"]["required"]
    required[required.index("computedAt")] = "indexedAt"


def nullable(document: dict[str, Any]) -> None:
    properties(document, ITEM)["uuid"] = {"anyOf": [{"type": "string"}, {"type": "null"}]}


def optional(document: dict[str, Any]) -> None:
    document["components"]["schemas"][ITEM]["required"].remove("uuid")


def typed(document: dict[str, Any]) -> None:
    properties(document, ITEM)["currentPrice"] = {"type": "string"}


def limited(document: dict[str, Any]) -> None:
    properties(document, REQUEST)["q"] = {"type": "string", "maxLength": 200}


def widened(document: dict[str, Any]) -> None:
    properties(document, REQUEST)["limit"]["maximum"] = 250


def valued(document: dict[str, Any]) -> None:
    document["components"]["schemas"]["ProductLookupMatchMode"]["enum"].append("exact")


def added(document: dict[str, Any]) -> None:
    properties(document, ITEM)["sustainability"] = {"type": "string"}


def opened(document: dict[str, Any]) -> None:
    document["paths"]["/products/stream"] = {"get": {"responses": {}}}


def closed(document: dict[str, Any]) -> None:
    del document["paths"]["/products/facet-counts"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (removed, "`MerchantProductListItem.currentPrice` is gone"),
        (renamed, "`DomainCatalogCoverage.computedAt` is gone; perhaps it is `indexedAt` now"),
        (nullable, "`MerchantProductListItem.uuid` may be null now"),
        (optional, "`MerchantProductListItem.uuid` is not required any more"),
        (typed, "`MerchantProductListItem.currentPrice`: `type` was number and is string"),
        (limited, f"`{REQUEST}.q` has the new limit `maxLength` of 200"),
        (widened, f"`{REQUEST}.limit`: `maximum` was 100 and is 250"),
        (valued, "`ProductLookupMatchMode` has the new value `exact`"),
        (added, "`MerchantProductListItem.sustainability` is new"),
        (opened, "`GET /products/stream` is new"),
        (closed, "`POST /products/facet-counts` is gone"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_change_is_named(change: Callable[[dict[str, Any]], None], line: str) -> None:
    document = published_document()
    changed = copy.deepcopy(document)
    change(changed)
    lines = differences(reduced(document), reduced(changed))
    assert line in lines
    assert line in report(lines, "this test")


def test_the_order_and_the_prose_of_a_document_mean_nothing() -> None:
    document = published_document()
    changed = copy.deepcopy(document)
    schemas = changed["components"]["schemas"]
    for schema in schemas.values():
        schema["description"] = "Other words"
        schema["properties"] = dict(reversed(schema.get("properties", {}).items()))
    changed["components"]["schemas"] = dict(reversed(schemas.items()))
    changed["paths"] = {f"/v1{path}": each for path, each in reversed(changed["paths"].items())}
    assert differences(reduced(document), reduced(changed)) == []


@pytest.mark.parametrize(("change", "status"), [(lambda _: None, 0), (removed, 1)])
def test_the_watch_compares_a_document_with_what_is_known(
    change: Callable[[dict[str, Any]], None], status: int, tmp_path: Path
) -> None:
    document = json.loads(json.dumps(published_document()))
    change(document)
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    command = [sys.executable, "-m", "tests.contract.drift", str(tmp_path / "openapi.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert ("currentPrice" in done.stdout) is bool(status)
