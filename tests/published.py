"""Made-up answers of the service, made from the models that Octogen publishes.

The models in `octogen_ai_sdk.generated.models` are generated from the live service. The answers
here are all that they accept, so they need no knowledge of this project.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel

from octogen_dagster.api.http import Response

published = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
"""The settings of tests that read these answers."""

ODD_TEXTS = [
    "",
    " ",
    "\x00",
    "\ufeffbyte order mark",
    'quote " slash / backslash \\ tab \t line \r\n',
    "<b>&amp;</b>\u2028",
    "Größe 38½ / Åre",
    "靴下 ソックス 양말 جوارب גרביים ถุงเท้า",
    "👩🏽\u200d🚀 e\u0301 \U0010ffff",
    "null",
    "1e400",
    "long " * 1000,
]
text = st.sampled_from(ODD_TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
integer = st.integers(-(2**53), 2**53)
number = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [-0.0, 0.1, 1e23, 5e-324, 1.7976931348623157e308, 9007199254740993.0, 10**30]
)


_MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))  # UTC can say them
_ZONES = st.integers(-(24 * 60) + 1, 24 * 60 - 1).map(
    lambda minutes: f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
)


@st.composite
def timestamps(draw: st.DrawFn, *, lax: bool) -> str:
    """Timestamps with a zone and with 0 to 9 digits of a second's fraction.

    Args:
        lax: True for other forms too, and for times that Python cannot represent in UTC.
    """
    moment = draw(_MOMENTS | st.sampled_from([datetime.min, datetime.max]) if lax else _MOMENTS)
    digits = draw(st.text("0123456789", max_size=9))
    fraction = f"{draw(st.sampled_from('.,' if lax else '.'))}{digits}" if digits else ""
    seconds = draw(st.sampled_from(["", ":05"] if lax else [f":{moment:%S}{fraction}"]))
    date = f"{moment.year:04}-{moment:%m-%d}"
    return (
        date
        + draw(st.sampled_from("_T" if lax else "Tt "))
        + f"{moment:%H:%M}{seconds}"
        + draw(st.sampled_from(["Z", "z", "+0000"]) | _ZONES)
    )


_PLAIN: Mapping[Any, st.SearchStrategy[Any]] = {
    str: text,
    int: integer,
    float: number | integer,
    bool: st.booleans(),
    AwareDatetime: timestamps(lax=False),
}
_LAX: Mapping[Any, st.SearchStrategy[Any]] = {
    str: text,
    int: integer | integer.map(float) | integer.map(str),
    float: number | number.map(repr),
    bool: st.sampled_from([True, 0, 1, "true", "off"]),
    AwareDatetime: timestamps(lax=True) | st.integers(-(10**9), 4 * 10**9),
}
_json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | integer | number | text | st.just(10**30),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2),
    max_leaves=3,
)


def answers(
    model: type[BaseModel],
    fields: Mapping[str, st.SearchStrategy[Any]] | None = None,
    *,
    lax: bool = False,
) -> st.SearchStrategy[dict[str, Any]]:
    """JSON objects that a published model accepts.

    A field that is not required may be absent, a nullable one null, an enum a value that nobody has
    seen. Every object may have fields that the model does not know.

    Args:
        model: A model of `octogen_ai_sdk.generated.models`.
        fields: Strategies for some fields of the model, by their names in JSON.
        lax: True for values that are of another JSON type, which pydantic converts.
    """
    required: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for name, field in model.model_fields.items():
        wire = field.alias or name
        chosen = (fields or {}).get(wire)
        some = _values(field.annotation, lax=lax) if chosen is None else chosen
        (required if field.is_required() else optional)[wire] = some
    known = {*model.model_fields, *required, *optional}
    unknown = (st.sampled_from(["newField", "model_extra"]) | text).filter(
        lambda name: name not in known
    )
    extras: st.SearchStrategy[dict[str, Any]] = st.just({})
    extras |= st.dictionaries(unknown, _json, max_size=2)
    plain = st.fixed_dictionaries(required, optional=optional)
    return st.tuples(extras, plain).map(lambda parts: parts[0] | parts[1])


def _values(annotation: Any, *, lax: bool) -> st.SearchStrategy[Any]:
    """The JSON values of a type that the models are annotated with."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return _json
    if annotation is NoneType:
        return st.none()
    if origin in (Union, UnionType):
        return st.one_of([_values(argument, lax=lax) for argument in arguments])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is list:
        inner = _values(arguments[0], lax=lax)
        return st.lists(inner, max_size=2) | inner.map(lambda value: [value] * 30)
    if origin is dict:
        return st.dictionaries(text, _values(arguments[1], lax=lax), max_size=2)
    if annotation in _PLAIN:
        return (_LAX if lax else _PLAIN)[annotation]
    return answers(annotation, lax=lax)


@st.composite
def bodies(draw: st.DrawFn, documents: st.SearchStrategy[Any]) -> bytes:
    """The same documents as JSON, as either of two servers writes it."""
    document = draw(documents)
    if draw(st.booleans()):
        return json.dumps(document).encode()
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def ok(content: bytes) -> Response:
    """A response that a body came with."""
    return Response(200, {"content-type": "application/json"}, content)


def values(value: Any) -> Any:
    """What a published model says, as plain values.

    A field that did not come is None: the models' own defaults are not what the service said. But
    a product of a catalog that does not say if it is active is. A time is in UTC, and None outside
    of the years 1 to 9999.
    """
    match value:
        case BaseModel():
            came = value.model_fields_set
            said = {
                name: values(getattr(value, name)) if name in came else None
                for name in type(value).model_fields
            }
            if "is_active" in said and "is_active" not in came:
                said["is_active"] = True if said["uuid"] else None
            return said
        case list():
            return [values(entry) for entry in value]
        case dict():
            return {name: values(entry) for name, entry in value.items()}
        case datetime():
            return utc(value)
        case _:
            return value


def utc(moment: datetime) -> datetime | None:
    """The same moment in UTC; None if Python cannot say it."""
    with contextlib.suppress(OverflowError):
        return moment.astimezone(UTC)
    return None


def unknown_fields(value: Any, path: str = "") -> Counter[str]:
    """How often each field came that a published model does not know, by its path in JSON."""
    return Counter(_unknown_fields(value, path))


def _unknown_fields(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for entry in value:
            yield from _unknown_fields(entry, path)
    elif isinstance(value, BaseModel):
        yield from (f"{path}{name}" for name in value.model_extra or ())
        for name, field in type(value).model_fields.items():
            yield from _unknown_fields(getattr(value, name), f"{path}{field.alias or name}.")
