"""The body of a successful answer, as a model or as an error that names what is wrong in it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from octogen_dagster.errors import unexpected_body

if TYPE_CHECKING:
    from collections.abc import Hashable

    import httpx

    from octogen_dagster.errors import OctogenResponseError

_Answer = TypeVar("_Answer")


@functools.cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)


def parsed(model: type[_Answer], response: httpx.Response, subject: str) -> _Answer:
    """The body as `model`.

    Args:
        model: A pydantic model, or a list of one.
        response: The answer, read.
        subject: What was asked for, to begin an error message with.

    Raises:
        OctogenResponseError: It is not JSON or not of that shape; the message names the product
            and the field.
    """
    try:
        answer: _Answer = _adapter(cast("Hashable", model)).validate_json(response.content)
        return answer
    except ValidationError as error:
        raise invalid_body(response, subject, error) from None


def invalid_body(
    response: httpx.Response, subject: str, error: ValidationError
) -> OctogenResponseError:
    first = error.errors(include_url=False)[0]
    if first["type"] == "json_invalid":
        reason = first["msg"].removeprefix("Invalid JSON: ")
        return unexpected_body(response, subject, f"a body that is not JSON, {reason}")
    return unexpected_body(response, subject, _problem(response.content, first))


def _problem(content: bytes, error: Any) -> str:
    """Where in the answer the first error is: the product, by its uuid, and the field."""
    loc = error["loc"]
    found = f"{error['msg'][0].lower()}{error['msg'][1:]}, not {str(error['input'])[:80]!r}"
    if len(loc) >= 2 and loc[0] == "items":
        item = from_json(content)["items"][loc[1]]
        uuid = item.get("uuid") if isinstance(item, dict) else None
        name = f"{uuid!r} (item {loc[1]})" if uuid else f"at item {loc[1]}"
        field_name = ".".join(str(part) for part in loc[2:])
        what = f"whose {field_name} is wrong" if field_name else "that is wrong"
        return f"a product {name} {what}: {found}"
    return f"a wrong {'.'.join(str(part) for part in loc) or 'document'}: {found}"
