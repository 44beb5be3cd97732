from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from octogen_dagster.control_plane.secret_files import SecretFile
from octogen_dagster.control_plane.token_endpoint import TokenEndpoint
from octogen_dagster.control_plane.token_refresh import RefreshedToken
from octogen_dagster.errors import OctogenMCPAuthenticationError, OctogenMCPError
from tests.api.servers import RawServer, http, in_turn
from tests.control_plane.servers import QUICK, TOKEN, grant
from tests.sharing.hostile_hub import HostileHub as Hub
from tests.sharing.secrets import leaks

OLD, NEW = "refresh-0123456789-old", "refresh-0123456789-new"
POLL_SECONDS = 60
AUTOSUBSCRIBE = "from octogen_dagster.cli.bigquery import autosubscribe; autosubscribe()"
REFRESHES = 500
REFRESHER = """
import sys
from octogen_dagster.control_plane.secret_files import SecretFile
from octogen_dagster.control_plane.token_endpoint import TokenEndpoint
from octogen_dagster.control_plane.token_refresh import RefreshedToken

path, client_id, url, refreshes = sys.argv[1:]
tokens = RefreshedToken(SecretFile(path, "refresh token"), lambda: client_id, TokenEndpoint(url))
print("ready", flush=True)
sys.stdin.readline()
token = None
for _ in range(int(refreshes)):
    token = tokens.token(refused=token)
print("done", flush=True)
"""


@pytest.fixture
def file(tmp_path: Path) -> SecretFile:
    file = SecretFile(tmp_path / "refresh", "refresh token")
    file.path.write_text(OLD)
    return file


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory, if there is one: the test is about locks, not about the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


def tokens_at(server: RawServer, held: SecretFile | str, **settings: Any) -> RefreshedToken:
    endpoint = TokenEndpoint(f"{server.origin}/token", retry=QUICK)
    return RefreshedToken(held, lambda: "client", endpoint, **settings)


def tokens_of(hub: Hub, held: SecretFile | str) -> RefreshedToken:
    endpoint = TokenEndpoint(hub.token_endpoint, retry=QUICK)
    return RefreshedToken(held, lambda: hub.client_id, endpoint)


def test_a_refresh_token_is_replaced_in_its_file(
    hub: Hub, refresh_file: SecretFile, caplog: pytest.LogCaptureFixture
) -> None:
    refresh_file.path.chmod(0o644)
    tokens = tokens_of(hub, refresh_file)
    first = tokens.token()
    assert refresh_file.read() == SecretStr(hub.refresh_token)
    assert tokens.token() == first
    second = tokens.token(refused=first)
    assert second != first
    assert refresh_file.read() == SecretStr(hub.refresh_token)
    assert [call.outcome for call in hub.calls] == ["OK", "OK"]
    assert refresh_file.path.stat().st_mode & 0o777 == 0o600
    (warning,) = caplog.messages  # at the first refresh only
    assert "can be read by others (mode 0644)" in warning


def test_a_refresh_token_that_is_not_replaced_stays_in_its_file(
    hub: Hub, refresh_file: SecretFile
) -> None:
    hub.rotate_refresh_tokens(False)
    tokens = tokens_of(hub, refresh_file)
    before = refresh_file.read()
    tokens.token(refused=tokens.token())
    assert refresh_file.read() == before == SecretStr(hub.refresh_token)


@pytest.mark.parametrize(
    ("seconds", "requests"),
    [(300, 1), (None, 1), (0, 2), ("soon", 1), (-5, 2), (10**400, 1), (math.nan, 1), (True, 1)],
)
def test_an_access_token_is_used_while_it_lives(seconds: Any, requests: int) -> None:
    with RawServer(lambda _: grant(expires_in=seconds)) as server:
        tokens = tokens_at(server, OLD)
        assert tokens.token() == tokens.token() == SecretStr(TOKEN)
        assert len(server.received) == requests


def test_an_access_token_is_renewed_before_it_expires() -> None:
    now = 1_000.0
    with RawServer(lambda _: grant(expires_in=300)) as server:
        tokens = tokens_at(server, OLD, clock=lambda: now)
        for age, requests in ((0, 1), (269, 1), (271, 2)):
            now = 1_000.0 + age
            tokens.token()
            assert len(server.received) == requests


def test_the_replacement_is_stored_before_the_access_token_is_checked(
    file: SecretFile,
) -> None:
    with (
        RawServer(in_turn(grant(access_token=None, refresh_token=NEW))) as server,
        pytest.raises(OctogenMCPAuthenticationError, match="gave as access token is not a token"),
    ):
        tokens_at(server, file).token()
    assert file.read() == SecretStr(NEW)


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (grant(refresh_token="two words"), OctogenMCPAuthenticationError),
        (http(400, {"error": "invalid_grant"}), OctogenMCPAuthenticationError),
        (http(404), OctogenMCPError),
    ],
)
def test_the_file_keeps_its_token_when_the_refresh_fails(
    file: SecretFile, response: list[bytes], kind: type[OctogenMCPError]
) -> None:
    with RawServer(in_turn(response)) as server, pytest.raises(kind) as caught:
        tokens_at(server, file).token()
    assert leaks(caught.value, OLD) == []
    assert file.read() == SecretStr(OLD)
    with file.locked():
        pass


def test_a_lifetime_that_is_no_number_does_not_lose_the_replacement(file: SecretFile) -> None:
    with RawServer(in_turn(grant(expires_in=10**400, refresh_token=NEW))) as server:
        tokens_at(server, file).token()
    assert file.read() == SecretStr(NEW)


def test_a_token_whose_file_cannot_be_replaced_is_not_sent(
    file: SecretFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    with RawServer(in_turn(grant(refresh_token=NEW))) as server:
        monkeypatch.setattr(os, "replace", read_only)
        with pytest.raises(OctogenMCPAuthenticationError, match="Read-only file system"):
            tokens_at(server, file).token()
        assert server.received == []


def test_a_new_token_that_cannot_be_stored_is_an_error_that_says_to_log_in(
    file: SecretFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        if NEW in Path(source).read_text():
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with (
        RawServer(in_turn(grant(refresh_token=NEW))) as server,
        pytest.raises(OctogenMCPAuthenticationError, match="The token in it is spent now") as e,
    ):
        tokens_at(server, file).token()
    assert "No space left on device" in str(e.value)


def test_a_token_that_another_program_replaced_meanwhile_is_read_again(file: SecretFile) -> None:
    def respond(request: Any) -> list[bytes]:
        if OLD.encode() in request.body:
            file.path.write_text(NEW)  # without a lock
            return http(400, {"error": "invalid_grant"})
        return grant()

    with RawServer(respond) as server:
        assert tokens_at(server, file).token() == SecretStr(TOKEN)
    assert file.read() == SecretStr(NEW)


def test_a_replacement_in_memory_is_used_and_logged_as_a_warning(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    hub.rotate_refresh_tokens()
    tokens = tokens_of(hub, hub.refresh_token)
    tokens.token(refused=tokens.token())
    assert [call.outcome for call in hub.calls] == ["OK", "OK"]
    assert "the new one is lost when this process ends" in caplog.text
    assert "sandbox-refresh" not in caplog.text


def test_no_token_shows_in_a_repr_or_a_log(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = tokens_of(hub, hub.refresh_token)
    access = tokens.token()
    seen = f"{tokens!r} {vars(tokens)} {access} {access!r} {caplog.text}"
    assert hub.refresh_token not in seen
    assert access.get_secret_value() not in seen


def test_a_refresh_token_of_two_words_is_an_error() -> None:
    endpoint = TokenEndpoint("http://127.0.0.1:1/")
    with pytest.raises(OctogenMCPAuthenticationError, match="The refresh token is not a token"):
        RefreshedToken("two words", lambda: "client", endpoint)


class SlowEndpoint:
    """A token endpoint that responds once it is released."""

    def __init__(self) -> None:
        self.requested, self.released = threading.Event(), threading.Event()

    def __call__(self, request: Any) -> list[bytes]:
        self.requested.set()
        assert self.released.wait(POLL_SECONDS)
        tokens = {"access_token": "access", "refresh_token": NEW, "token_type": "Bearer"}
        return http(body=tokens)


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 2])
def test_a_first_interrupt_waits_for_the_new_refresh_token(
    tmp_path: Path, by: signal.Signals, times: int
) -> None:
    file = tmp_path / "refresh"
    file.write_text(OLD)
    file.chmod(0o600)
    endpoint = SlowEndpoint()
    with RawServer(endpoint) as server:
        options = {
            "--project": "my-project",
            "--principal": "serviceAccount:reader@my-project.iam.gserviceaccount.com",
            "--mcp-url": f"{server.origin}/mcp/",
            "--mcp-client-id": "client",
            "--mcp-refresh-token-file": str(file),
            "--mcp-token-endpoint": f"{server.origin}/token",
        }
        words = [word for option in options.items() for word in option]
        process = subprocess.Popen(
            [sys.executable, "-c", AUTOSUBSCRIBE, *words], stderr=subprocess.PIPE, text=True
        )
        assert process.stderr
        try:
            assert endpoint.requested.wait(POLL_SECONDS)
            process.send_signal(by)
            said = process.stderr.readline()
            if times == 2:
                process.send_signal(by)
                process.wait(POLL_SECONDS)
            endpoint.released.set()
            process.communicate(timeout=POLL_SECONDS)
        finally:
            process.kill()
    assert said == (
        "Waiting for the token endpoint: it may be replacing the refresh token, and the new one "
        "would be lost. Interrupt again to leave at once.\n"
    )
    assert process.returncode == (1 if by == signal.SIGINT else 143)
    assert file.read_text().strip() == (NEW if times == 1 else OLD)


@pytest.mark.slow
def test_two_processes_never_lose_the_token_of_a_file(hub: Hub, folder: Path) -> None:
    hub.rotate_refresh_tokens()
    file = SecretFile(folder / "refresh", "refresh token")
    file.path.write_text(hub.refresh_token)
    file.path.chmod(0o600)
    command = [sys.executable, "-c", REFRESHER, str(file.path), hub.client_id, hub.token_endpoint]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [*command, str(REFRESHES)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(2)
        ]
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            assert process.communicate(timeout=100) == ("done\n", "")

    outcomes = [call.outcome for call in hub.calls]
    assert outcomes == ["OK"] * (2 * REFRESHES)
    assert file.read() == SecretStr(hub.refresh_token)
    assert sorted(path.name for path in folder.iterdir()) == ["refresh", "refresh.lock"]
