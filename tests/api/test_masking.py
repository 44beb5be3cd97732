from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from octogen_dagster.api.masking import KeyMask, masked_keys
from tests.api.servers import KEY

SECRET = KEY.rpartition("_")[2]
ANOTHER = f"octo_test_{'f' * 32}_c29tZWJvZHktZWxzZQ"


def escaped(text: str, form: str = "\\u{:04x}") -> str:
    return "".join(form.format(ord(character)) for character in text)


FORMS = {
    "plain": KEY,
    "the secret part alone": SECRET,
    "one character escaped": KEY.replace("o", "\\u006F", 1),
    "all characters escaped": escaped(KEY),
    "JSON within JSON": json.dumps(escaped(KEY)).strip('"'),
    "repr of bytes": escaped(KEY, "\\x{:02x}"),
    "repr of UTF-16": "".join(f"{character}\\x00" for character in KEY),
}


class TestText:
    @pytest.mark.parametrize("form", [*FORMS.values(), escaped(KEY, "%{:02X}")], ids=repr)
    def test_the_key_is_masked_in_each_form(self, form: str) -> None:
        masked = KeyMask(KEY).text(f"<{form}>")
        assert masked.startswith("<[api key]")
        assert masked.removesuffix("\\x00>").endswith(("]", "]>"))

    def test_a_key_with_characters_that_urls_escape_is_masked_in_a_url(self) -> None:
        key = "secret+of/the=platform"
        assert KeyMask(key).text(f"?key={quote(key, safe='')}&x=1") == "?key=[api key]&x=1"

    def test_another_key_is_masked_by_its_form(self) -> None:
        assert KeyMask(KEY).text(f"<{ANOTHER}>") == "<[api key]>"
        assert masked_keys(f"<{ANOTHER}>") == "<[api key]>"

    @pytest.mark.parametrize("text", ["", "octo_live_0123", "a keyword", "\\u006f%6f\0"])
    def test_a_text_without_a_key_is_unchanged(self, text: str) -> None:
        assert KeyMask(KEY).text(text) == text

    def test_a_placeholder_is_not_masked_within_words(self) -> None:
        assert KeyMask("key").text("keyword") == "keyword"


class TestContent:
    @pytest.mark.parametrize("form", [form for form in FORMS.values() if "\\x" not in form])
    def test_the_key_is_masked_in_each_form(self, form: str) -> None:
        assert KeyMask(KEY).content(f'["{form}"]'.encode()) == b'["[api key]"]'

    @pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
    @pytest.mark.parametrize("form", [KEY, SECRET, escaped(KEY)])
    def test_the_key_is_masked_in_wide_encodings(self, encoding: str, form: str) -> None:
        assert KeyMask(KEY).content(f'["{form}"]'.encode(encoding)) == b'["[api key]"]'

    @pytest.mark.parametrize(
        "content",
        [b"", b'["\\u006f\\u0063"]', '["ключ"]'.encode("utf-16"), b"octo_live_0123"],
    )
    def test_bytes_without_the_key_are_the_same_object(self, content: bytes) -> None:
        assert KeyMask(KEY).content(content) is content

    def test_a_placeholder_is_not_masked_within_words(self) -> None:
        assert KeyMask("key").content(b"keyword") == b"keyword"

    @pytest.mark.parametrize("part", ["\\", "\\x00", "o", "o\\x00", KEY[:-1], SECRET[:-1]])
    def test_no_bytes_make_the_search_slow(self, part: str) -> None:
        """A search that is not linear would not come to an end."""
        hostile = (part * (2_000_000 // len(part)) + "\\u006f").encode()
        assert KeyMask(KEY).content(hostile) is hostile
