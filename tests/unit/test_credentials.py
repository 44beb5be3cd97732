from __future__ import annotations

import copy
import pickle
import warnings

import httpx
import pytest

from octogen_dagster.api import credentials
from octogen_dagster.api.credentials import (
    DEFAULT_BASE_URL,
    ApiKey,
    checked_base_url,
    checked_url,
    masked_keys,
    may_use_proxy,
)
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


@pytest.mark.parametrize(
    "url",
    ["https://mcp.octogen.ai/mcp/", "http://127.0.0.1:8080/mcp/", "http://localhost/x"],
)
def test_https_and_this_machine_are_accepted(url: str) -> None:
    assert checked_url(f" {url} ", "The MCP URL") == url
    assert may_use_proxy(url) is url.startswith("https")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://mcp.octogen.ai/mcp/", "would send a token over plain http: use https"),
        ("http://127.0.0.1.example.com/", "would send a token over plain http"),
        ("ftp://mcp.octogen.ai/", "needs a scheme and a host"),
        ("mcp.octogen.ai/mcp/", "needs a scheme and a host"),
        ("https://", "needs a scheme and a host"),
        ("https://me:secret@mcp.octogen.ai/", "must not carry a user or password"),
        ("https://[::1/", "is not a URL"),
    ],
)
def test_any_other_url_is_refused_with_the_reason(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        checked_url(url, "The MCP URL")
    assert str(caught.value).startswith("The MCP URL ")
    assert "secret" not in str(caught.value)


class TestBaseUrl:
    @pytest.mark.parametrize(
        ("base_url", "checked"),
        [
            (DEFAULT_BASE_URL, DEFAULT_BASE_URL),
            ("https://api.octogen.ai/v1/", "https://api.octogen.ai/v1"),
            ("https://api.octogen.ai", "https://api.octogen.ai"),
            ("HTTPS://API.OCTOGEN.AI/v1", "https://api.octogen.ai/v1"),
            ("https://proxy.example:8443/octogen/v1", "https://proxy.example:8443/octogen/v1"),
            ("http://127.0.0.1:8787/v1", "http://127.0.0.1:8787/v1"),
            ("http://127.9.9.9/v1", "http://127.9.9.9/v1"),
            ("http://localhost:8787/v1", "http://localhost:8787/v1"),
            ("http://[::1]:8787/v1", "http://[::1]:8787/v1"),
        ],
    )
    def test_a_valid_one_loses_its_trailing_slash(self, base_url: str, checked: str) -> None:
        assert checked_base_url(base_url) == checked

    @pytest.mark.parametrize(
        ("base_url", "text"),
        [
            ("", "needs a scheme and a host, such as https://api.octogen.ai/v1"),
            ("api.octogen.ai/v1", "'api.octogen.ai/v1' needs a scheme and a host"),
            ("https:///v1", "needs a scheme and a host"),
            ("ftp://api.octogen.ai/v1", "needs a scheme and a host"),
            ("https://api.octogen.ai:port/v1", "is not a URL: Invalid port"),
            ("https://api.octogen.ai/v1\n", "is not a URL"),
            ("http://api.octogen.ai/v1", "would send the API key over plain http: use https"),
            ("http://10.0.0.7/v1", "would send the API key over plain http"),
            ("http://localhost.example/v1", "would send the API key over plain http"),
            ("http://127.0.0.1.example/v1", "would send the API key over plain http"),
            ("http://0.0.0.0/v1", "would send the API key over plain http"),
            ("http://127.0.0.1:65536/v1", "has a port above 65535"),
            ("https://api.octogen.ai/v1?team=data", "must end with its path, without ? or #"),
            ("https://api.octogen.ai/v1?", "must end with its path, without ? or #"),
            ("https://api.octogen.ai/v1#top", "must end with its path, without ? or #"),
            ("https://api.octogen.ai/v1#", "must end with its path, without ? or #"),
        ],
    )
    def test_an_invalid_one_is_refused_with_the_reason(self, base_url: str, text: str) -> None:
        with pytest.raises(ValueError, match="base_url") as caught:
            checked_base_url(base_url)
        assert text in str(caught.value)

    @pytest.mark.parametrize(
        "base_url",
        [
            KEY,
            f"https://{KEY}/v1",
            f"https://{KEY}.example/v1",
            f"https://user:{KEY}@api.octogen.ai/v1",
            f"https://api.octogen.ai:{KEY}/v1",
            f"https://api.octogen.ai/{KEY}",
            f"https://api.octogen.ai/v1?key={KEY}",
            f"https://api.octogen.ai/v1#{KEY}",
        ],
    )
    def test_an_api_key_in_it_is_refused_and_not_shown(self, base_url: str) -> None:
        with pytest.raises(ValueError, match="base_url holds an API key: correct it") as caught:
            checked_base_url(base_url, ApiKey(KEY).masked)
        assert "octo_" not in str(caught.value)

    def test_another_form_of_key_is_refused_if_it_is_the_key(self) -> None:
        base_url = "https://octogen.example/a-key-of-a-proxy/v1"
        assert checked_base_url(base_url, ApiKey("another-key").masked) == base_url
        with pytest.raises(ValueError, match="base_url holds an API key"):
            checked_base_url(base_url, ApiKey("a-key-of-a-proxy").masked)

    @pytest.mark.parametrize("userinfo", [f"user:{KEY}", KEY, f":{KEY}"])
    def test_credentials_in_it_are_refused_and_not_quoted(self, userinfo: str) -> None:
        with pytest.raises(ValueError, match="pass the key as api_key") as caught:
            checked_base_url(f"https://{userinfo}@api.octogen.ai/v1")
        assert KEY not in str(caught.value)

    @pytest.mark.parametrize(
        "base_url",
        [
            "https://user:pass/word@api.octogen.ai/v1",
            "https://user:pass\nword@api.octogen.ai/v1",
            "https//user:password@api.octogen.ai/v1",
            "user:password@api.octogen.ai",
            "https://user:pass@word@api.octogen.ai/v1",
            "https://api.octogen.ai/v1?password",
            "https://api.octogen.ai/v1#password",
            "ftp://api.octogen.ai/v1?password",
        ],
    )
    def test_what_may_be_a_password_is_not_quoted(self, base_url: str) -> None:
        with pytest.raises(ValueError, match="base_url") as caught:
            checked_base_url(base_url)
        text = str(caught.value).replace("must not carry a user or password; pass the key", "")
        assert "pass" not in text
        assert "word" not in text
