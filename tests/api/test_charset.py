from __future__ import annotations

import pytest

from octogen_dagster.api.charset import decoded, decoded_unusually


def test_a_body_is_decoded_as_its_type_says() -> None:
    assert decoded_unusually("é".encode("cp037"), "text/html; charset=cp037") == "é"


@pytest.mark.parametrize("charset", ["punycode", "PUNYCODE"])
def test_a_charset_whose_codec_takes_hours_is_none(charset: str) -> None:
    content_type = f"text/html; charset={charset}"
    assert decoded_unusually(b"a" * 10_000_000, content_type) is None
    assert decoded(b"\xff-a", content_type) == "\ufffd-a"
