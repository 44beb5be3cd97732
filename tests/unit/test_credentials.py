from __future__ import annotations

import warnings

import httpx
import pytest

from octogen_dagster.api import credentials
from octogen_dagster.api.credentials import (
    DEFAULT_BASE_URL,
    ApiKey,
    checked_base_url,
)
from octogen_dagster.errors import MissingAPIKeyError
from octogen_dagster.settings import did_you_mean, require_fraction
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


# What a user sets: mistyped names, fractions.


def test_only_a_similar_name_is_meant() -> None:
    assert did_you_mean("north-peak", ["northpeak", "strada"]) == " Did you mean 'northpeak'?"
    assert did_you_mean("farfetch", ["northpeak", "strada"]) == ""
    assert did_you_mean("strada", ["strada"]) == ""


@pytest.mark.parametrize("value", [-0.01, 5, float("nan"), float("inf")])
def test_what_is_no_fraction_is_refused_by_name(value: float) -> None:
    for fraction in (0, 0.05, 1):
        require_fraction("reserve", fraction)
    with pytest.raises(ValueError, match=rf"reserve must be a share from 0 to 1.*not {value}"):
        require_fraction("reserve", value)
