"""The contract as the published models say it: an OpenAPI document that is made of them.

python -m tests.contract.published_drift            # how the installed models differ
python -m tests.contract.published_drift --write    # what they say becomes what is known
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from typing import Any

from octogen_ai_sdk import models
from octogen_ai_sdk.generated import models as generated
from octogen_ai_sdk.operations import OPERATIONS
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from tests.contract.drift import GOLDEN, compare, reduced

_BODIES: dict[str, tuple[type[BaseModel] | None, type[BaseModel]]] = {
    "addUrlListUrls": (models.CoverageUrlsRequest, generated.CoverageUrlMutationResponse),
    "checkUrlListUrls": (models.CoverageUrlsRequest, generated.CoverageContainsResponse),
    "createUrlList": (models.CoverageUrlListCreateRequest, generated.CoverageUrlList),
    "deleteUrlList": (None, generated.CoverageUrlList),
    "getUrlList": (None, generated.CoverageUrlList),
    "listUrlListUrls": (None, generated.CoverageUrlListUrlsResponse),
    "listUrlLists": (None, generated.CoverageUrlListListResponse),
    "removeUrlListUrls": (models.CoverageUrlsRequest, generated.CoverageUrlMutationResponse),
    "getMe": (None, generated.MeResponse),
    "getDomain": (None, generated.DomainCoverageResponse),
    "countProductFacets": (
        models.ProgrammaticFacetCountsRequest,
        generated.ProgrammaticFacetCountsResponse,
    ),
    "lookupProduct": (
        models.ProgrammaticProductLookupRequest,
        generated.MerchantProductUrlLookupResponse,
    ),
    "searchProducts": (
        models.ProgrammaticProductSearchRequest,
        generated.ProgrammaticProductSearchPage,
    ),
}
"""Request and answer of each operation that this package calls. The models written by hand have the
limits of requests; the generated ones have lost them."""
_REF = "#/components/schemas/{model}"


def published_document() -> dict[str, Any]:
    """Return an OpenAPI document of the published models and operations."""
    paths: dict[str, Any] = {}
    for name, operation in OPERATIONS.items():
        request, answer = _BODIES.get(name, (None, None))
        described: dict[str, Any] = {"operationId": name, "responses": {"200": _content(answer)}}
        if request:
            described["requestBody"] = _content(request)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    used = [model for pair in _BODIES.values() for model in pair if model]
    _, document = models_json_schema(
        [(model, "validation") for model in used], by_alias=True, ref_template=_REF
    )
    return {"paths": paths, "components": {"schemas": document["$defs"]}}


def _content(model: type[BaseModel] | None) -> dict[str, Any]:
    if model is None:
        return {}
    return {
        "content": {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}
    }


if __name__ == "__main__":
    found = reduced(published_document())
    if sys.argv[1:] == ["--write"]:
        GOLDEN.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    else:
        version = importlib.metadata.version("octogen-ai-sdk")
        sys.exit(compare(found, f"the models of octogen-ai-sdk {version}"))
