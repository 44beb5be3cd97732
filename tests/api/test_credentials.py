from __future__ import annotations

import copy
import pickle
import warnings

import httpx
import pytest

from octogen_dagster.api import credentials
from octogen_dagster.api.credentials import ApiKey, masked_keys
from octogen_dagster.api.http import Response
from octogen_dagster.errors import MissingAPIKeyError
from tests.api.servers import KEY


def bearer(key: ApiKey) -> str:
    """The header that the key adds to a request."""
    request = httpx.Request("GET", "https://api.octogen.ai/v1")
    return key(request).headers["Authorization"]


class TestSources:
    @pytest.mark.parametrize(
        ("argument", "octo", "platform", "used"),
        [
            ("argument", "octo", "platform", "argument"),
            (None, "same", "same", "same"),
            ("", "same", "same", "same"),
            ("  ", "same", "same", "same"),
            (None, "octo", None, "octo"),
            (None, "octo", "", "octo"),
            (None, "octo\n", " ", "octo"),
            (None, None, "platform", "platform"),
            (None, " ", "platform", "platform"),
            (" argument\n", None, None, "argument"),
        ],
    )
    def test_the_argument_comes_first_then_the_environment(
        self,
        monkeypatch: pytest.MonkeyPatch,
        argument: str | None,
        octo: str | None,
        platform: str | None,
        used: str,
    ) -> None:
        for name, value in (("OCTO_API_KEY", octo), ("OCTOGEN_PLATFORM_API_KEY", platform)):
            if value is not None:
                monkeypatch.setenv(name, value)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert bearer(ApiKey(argument)) == f"Bearer {used}"

    def test_of_two_keys_the_platform_key_counts_and_one_warning_is_given(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OCTO_API_KEY", f"{KEY}-old")
        monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", f"{KEY}-new")
        credentials._warn_of_two_keys.cache_clear()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert [bearer(ApiKey()) for _ in range(2)] == [f"Bearer {KEY}-new"] * 2
        (warning,) = caught
        assert str(warning.message) == (
            "OCTOGEN_PLATFORM_API_KEY and OCTO_API_KEY hold different Octogen API keys, and "
            "OCTOGEN_PLATFORM_API_KEY is used: unset one of them."
        )

    @pytest.mark.parametrize("argument", [None, "", " \n"])
    def test_the_error_of_a_missing_key_says_what_to_do(self, argument: str | None) -> None:
        with pytest.raises(MissingAPIKeyError) as caught:
            ApiKey(argument)
        for part in ("OCTO_API_KEY", "OCTOGEN_PLATFORM_API_KEY", "octogen-dagster sandbox"):
            assert part in str(caught.value)

    @pytest.mark.parametrize("key", [f"{KEY} {KEY}", f"{KEY}\nX-Other: 1", f"{KEY}é", f"\0{KEY}"])
    def test_a_malformed_key_is_refused_and_not_quoted(self, key: str) -> None:
        with pytest.raises(ValueError, match="characters that no key has") as caught:
            ApiKey(key)
        assert "octo_live_" not in str(caught.value)


class TestPickling:
    def test_unpickling_takes_the_key_from_the_environment(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pickled = pickle.dumps(ApiKey(KEY))
        assert KEY.encode() not in pickled
        monkeypatch.setenv("OCTO_API_KEY", "another-key")
        assert bearer(pickle.loads(pickled)) == "Bearer another-key"

    def test_unpickling_without_a_key_in_the_environment_is_an_error(self) -> None:
        pickled = pickle.dumps(ApiKey(KEY))
        with pytest.raises(MissingAPIKeyError, match="OCTO_API_KEY"):
            pickle.loads(pickled)

    def test_no_text_of_the_key_shows_it(self) -> None:
        key = ApiKey(KEY)
        for text in (repr(key), str(key), f"{key}", repr([key]), repr({"key": key})):
            assert KEY not in text

    def test_a_copy_keeps_the_key(self) -> None:
        key = ApiKey(KEY)
        assert bearer(copy.copy(key)) == bearer(copy.deepcopy(key)) == f"Bearer {KEY}"


class TestRedaction:
    def response(self, content: bytes, **headers: str) -> Response:
        return Response(200, headers, content)

    def test_a_response_without_the_key_is_unchanged(self) -> None:
        response = self.response(b"[]")
        assert ApiKey(KEY).redacted(response) == response

    def test_an_echo_is_masked_in_the_body_and_the_headers(self) -> None:
        response = self.response(
            f'{{"detail":"Bearer {KEY}"}}'.encode(), x_echo=f"<{KEY}>", x_kept="1"
        )
        redacted = ApiKey(KEY).redacted(response)
        assert redacted.content == b'{"detail":"Bearer [api key]"}'
        assert redacted.headers["x_echo"] == "<[api key]>"
        assert redacted.headers["x_kept"] == "1"

    def test_a_placeholder_key_is_not_masked_within_words(self) -> None:
        response = self.response(b'{"detail":"keyword not found"}')
        assert ApiKey("key").redacted(response) == response
        assert ApiKey("key").masked("keyword") == "keyword"

    def test_another_key_is_masked_in_a_text_by_its_form(self) -> None:
        another = f"<octo_test_{'f' * 32}_c29tZWJvZHktZWxzZQ>"
        assert ApiKey(KEY).masked(another) == masked_keys(another) == "<[api key]>"
