from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import SecretStr

from octogen_dagster.control_plane.parsing import (
    parsed_object,
    parsed_seconds,
    parsed_token,
    required_token,
)
from octogen_dagster.errors import OctogenMCPAuthenticationError


@pytest.mark.parametrize("text", ["abc", " abc\n", "\tabc"])
def test_a_token_is_a_word_without_the_blanks_around_it(text: str) -> None:
    assert parsed_token(text) == SecretStr("abc")


@pytest.mark.parametrize("value", ["", " ", "two words", "a\tb", "a\nb", "é", "a\x00", 5, None, []])
def test_anything_else_is_not_a_token(value: object) -> None:
    assert parsed_token(value) is None


def test_a_required_token_that_is_missing_is_an_error_with_its_subject() -> None:
    assert required_token(SecretStr("abc"), "It") == SecretStr("abc")
    with pytest.raises(OctogenMCPAuthenticationError) as caught:
        required_token(None, "The refresh token")
    assert str(caught.value) == (
        "The refresh token is not a token: a token is one word, without blanks."
    )


@pytest.mark.parametrize(("value", "seconds"), [(5, 5.0), (0.5, 0.5), (-1, -1.0), (0, 0.0)])
def test_seconds_are_any_finite_number(value: object, seconds: float) -> None:
    assert parsed_seconds(value) == seconds


@pytest.mark.parametrize("value", ["5", None, True, math.nan, math.inf, 10**400, [5]])
def test_other_values_are_no_seconds(value: Any) -> None:
    assert parsed_seconds(value) is None


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b"{}", {}),
        (b"[1]", {}),
        (b"", {}),
        (b"\xff", {}),
        (b"[" * 100_000, {}),
    ],
)
def test_content_that_is_no_json_object_is_an_empty_one(
    content: bytes, value: dict[str, int]
) -> None:
    assert parsed_object(content) == value
