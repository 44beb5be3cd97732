from __future__ import annotations

import secrets

import pytest

from octogen_dagster.control_plane.error_output import MAX_SIZE, shown_error_output


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"", ""),
        (b" \n", ""),
        (b"curl: (22) The requested URL returned error: 403\n", None),
        (b"ERROR: (gcloud.auth) reauthentication is needed", None),
        (b"dial tcp 127.0.0.1:8200: connection refused", None),
        (b"two\n  lines\ttabbed", "two lines tabbed"),
        (b"\x1b]0;title\x07 caf\xc3\xa9 \xff", "'\\x1b]0;title\\x07 caf\u00e9 \ufffd'"),
        (b"token: abc", "token: [masked]"),
        (b'{"access_token": "abc", "x": 1}', '{"access_token": "[masked]", "x": 1}'),
        (b"Authorization: Bearer abc", "Authorization: Bearer [masked]"),
        (b"sent bearer abc", "sent bearer [masked]"),
        (b"PASSWORD=hunter2 failed", "PASSWORD=[masked] failed"),
        (b"access-0123456789", "[masked]"),
        (b"sk-" + b"s" * 30, "[masked]"),
        (b"cannot use access-SECRET", "cannot use [masked]"),
        (b"cannot use accessSECRETs", "cannot use [masked]"),
        (b"code: PERMISSION_DENIED", None),
        (b"error: invalid_grant", None),
        (b"error: unsupported_grant_type", None),
        (b"reason: ACCESS_TOKEN_SCOPE_INSUFFICIENT", None),
        (b"it is " + b"s" * 30, "it is [masked]"),
        (b"it is accessSECRET_secret_secret_secret", "it is [masked]"),
        (b"authentication is misconfigured", None),
    ],
)
def test_a_reason_is_shown_and_a_secret_is_not(content: bytes, shown: str | None) -> None:
    assert shown_error_output(content) == (content.decode().strip() if shown is None else shown)


@pytest.mark.parametrize("generate", [secrets.token_hex, secrets.token_urlsafe])
def test_no_part_of_a_token_is_shown(generate: object) -> None:
    assert callable(generate)
    for _ in range(200):
        token = generate(24)
        shown = shown_error_output(f"cannot use {token}, sorry".encode())
        assert shown == "cannot use [masked], sorry"


def test_a_word_that_was_printed_is_masked_whatever_it_looks_like() -> None:
    shown = shown_error_output(b"the vault gave me tokens: secret", b"the secret vault\n")
    assert shown == "the vault gave me tokens: [masked]"


def test_the_end_is_shown_and_never_the_end_of_a_secret_that_is_cut_off() -> None:
    shown = shown_error_output((b"x" * 5_000 + b" the reason")[-MAX_SIZE:])
    assert shown == "the reason"
    assert shown_error_output((b"word " * 2_000 + b"the reason")[-MAX_SIZE:])[-10:] == "the reason"
    assert len(shown_error_output(b"word " * 200)) <= 300
