"""Rotating refresh tokens are never lost between processes, and no token appears anywhere."""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

import octogen_dagster as od
from octogen_dagster.cli.main import main
from octogen_dagster.control_plane import refresh, tokens
from octogen_dagster.errors import (
    OctogenConnectionError,
    OctogenError,
    OctogenMCPAuthenticationError,
    OctogenMCPError,
    OctogenMCPRateLimitError,
    OctogenTimeoutError,
)
from tests.api.servers import Received, http
from tests.messages import Golden
from tests.promises.control_plane import POLL_SECONDS, SECRET, SlowEndpoint, failure_of
from tests.promises.login.control_plane_sessions import side_by_side
from tests.servers.octogen_mcp import CLIENT, PRINCIPAL, PROJECT, OctogenServer

PROCESSES, SESSIONS = 8, 4


@pytest.fixture
def file(server: OctogenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The refresh token's file, which the environment names."""
    file = tmp_path / "refresh"
    file.write_text(f"{server.refresh_token}\n")
    file.chmod(0o600)
    monkeypatch.setenv("OCTOGEN_MCP_REFRESH_TOKEN_FILE", str(file))
    monkeypatch.setenv("OCTOGEN_MCP_CLIENT_ID", CLIENT)
    return file


def call(deadline: float = 60.0) -> None:
    with od.OctogenControlPlaneResource(principal=PRINCIPAL).control_plane(deadline) as octogen:
        octogen.listings()


def failure(kind: type[OctogenError], deadline: float = 60.0) -> str:
    return failure_of(kind, lambda: call(deadline))


def test_a_replacement_is_stored_for_its_owner_alone(server: OctogenServer, file: Path) -> None:
    file.chmod(0o644)
    server.expires_in = 0
    for _ in range(3):
        call()
        assert file.read_text() == f"{server.refresh_token}\n"
        assert file.stat().st_mode & 0o777 == 0o600
    assert server.refusals == 0
    assert server.grants[0] == {
        "grant_type": "refresh_token",
        "refresh_token": "refresh-secret-0",
        "client_id": CLIENT,
    }


def test_a_link_stays_a_link(server: OctogenServer, file: Path) -> None:
    kept = file.rename(file.with_name("kept"))
    file.symlink_to(kept)
    call()
    assert file.is_symlink()
    assert kept.read_text() == f"{server.refresh_token}\n"


def test_a_token_that_is_not_replaced_stays(server: OctogenServer, file: Path) -> None:
    server.rotates = False
    call()
    assert file.read_text() == "refresh-secret-0\n"


@pytest.mark.parametrize(
    ("life", "is_kept"), [(300, True), (None, True), ("soon", True), (10**400, True), (0.0, False)]
)
def test_sessions_share_an_access_token_while_it_lives(
    server: OctogenServer, file: Path, life: Any, is_kept: bool
) -> None:
    server.expires_in = life
    resource = od.OctogenControlPlaneResource(principal=PRINCIPAL)
    for _ in range(2):
        with resource.control_plane() as octogen:
            assert [octogen.listings() for _ in range(2)] == [[], []]
    assert server.count("initialize") == 2
    assert (server.count("token") == 1) == is_kept
    assert file.read_text() == f"{server.refresh_token}\n"


@pytest.mark.parametrize(
    ("life", "age", "is_renewed"),
    [(300, 269, False), (300, 271, True), (40, 19, False), (40, 21, True)],
)
def test_an_access_token_is_renewed_before_its_end(
    server: OctogenServer,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    life: int,
    age: int,
    is_renewed: bool,
) -> None:
    now = 1_000.0
    for module in (refresh, tokens):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    server.expires_in = life
    call()
    now += age
    call()
    assert server.count("token") == 1 + is_renewed
    assert file.read_text() == f"{server.refresh_token}\n"


@pytest.mark.slow
def test_processes_side_by_side_lose_no_token(server: OctogenServer, file: Path) -> None:
    server.expires_in = 0
    environment = {name: value for name, value in os.environ.items() if "OCTOGEN_MCP" in name}
    side_by_side(environment, PRINCIPAL, at_once=PROCESSES, number=SESSIONS)
    assert server.refusals == 0
    assert server.count("token") >= PROCESSES * SESSIONS
    assert file.read_text() == f"{server.refresh_token}\n"
    assert sorted(path.name for path in file.parent.iterdir()) == ["refresh", "refresh.lock"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("by", "times"), [(signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGTERM, 2)]
)
def test_a_stop_after_the_token_was_spent_stores_the_new_one(
    golden: Golden, server: OctogenServer, file: Path, by: signal.Signals, times: int
) -> None:
    spent, released = threading.Event(), threading.Event()

    def answer(request: Any) -> Iterator[bytes]:
        parts = server._token(request)
        spent.set()
        assert released.wait(POLL_SECONDS)
        yield from parts

    server.fail("token", answer)
    command = "from octogen_dagster.cli.main import main; main()"
    arguments = ["bq", "autosubscribe", "--project", PROJECT, "--principal", PRINCIPAL]
    process = subprocess.Popen(
        [sys.executable, "-c", command, *arguments], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr
    try:
        assert spent.wait(POLL_SECONDS)
        process.send_signal(by)
        said = process.stderr.readline()
        if times == 2:  # who asks twice does not want to wait
            process.send_signal(by)
            process.wait(POLL_SECONDS)
        released.set()
        process.communicate(timeout=POLL_SECONDS)
    finally:
        released.set()
        process.kill()
    golden("errors", said)
    assert process.returncode == (1 if by == signal.SIGINT else 143)
    stored = file.read_text() == f"{server.refresh_token}\n"
    assert stored == (times == 1)


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Interrupt whoever starts a thread of a name, once that thread runs."""

    def interrupt(name: str) -> None:
        start = threading.Thread.start

        def start_and_raise(self: threading.Thread) -> None:
            start(self)
            if self.name == name:
                monkeypatch.setattr(threading.Thread, "start", start)
                raise KeyboardInterrupt

        monkeypatch.setattr(threading.Thread, "start", start_and_raise)

    return interrupt


def test_an_interrupt_at_the_start_of_a_refresh_leaves_it_the_lock(
    server: OctogenServer, file: Path, interrupt: Callable[[str], None]
) -> None:
    endpoint = SlowEndpoint(server)
    interrupt("octogen-token")
    with ThreadPoolExecutor(1) as threads:
        stopped = threads.submit(call)
        assert endpoint.spent.wait(POLL_SECONDS)
        failure(OctogenTimeoutError, deadline=0.2)
        endpoint.release(file.read_text)
        assert isinstance(stopped.exception(POLL_SECONDS), KeyboardInterrupt)
    call()
    assert (server.count("token"), server.refusals) == (1, 0)


def test_an_interrupt_before_a_refresh_leaves_no_lock(
    server: OctogenServer, file: Path, interrupt: Callable[[str], None]
) -> None:
    interrupt("octogen-login")
    with pytest.raises(KeyboardInterrupt) as stopped:
        call()
    call(deadline=5)
    assert stopped.value.__traceback__  # which kept the lock of a thread that nobody waited for
    assert (server.count("token"), server.refusals) == (1, 0)


def test_a_token_that_another_program_replaced_without_the_lock_is_read_again(
    server: OctogenServer, file: Path
) -> None:
    def spend_it(_: object) -> list[bytes]:
        server.refresh_token = "refresh-secret-of-another"
        file.write_text(server.refresh_token)
        return http(400, {"error": "invalid_grant"})

    server.fail("token", spend_it)
    call()
    assert server.refusals == 0
    assert file.read_text() == f"{server.refresh_token}\n"


def test_a_token_whose_file_cannot_be_replaced_is_not_sent(
    golden: Golden, server: OctogenServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", read_only)
    golden("errors", failure(OctogenMCPAuthenticationError))
    assert server.calls == []
    assert file.read_text() == "refresh-secret-0\n"


def test_a_new_token_that_cannot_be_stored_is_an_error_that_says_to_log_in(
    golden: Golden, server: OctogenServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        if "refresh-secret-0" not in Path(source).read_text():
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    said = failure(OctogenMCPAuthenticationError)
    golden("errors", said)
    assert "run `octogen-dagster login`" in said


def test_a_refused_access_token_is_replaced_once(
    golden: Golden, server: OctogenServer, file: Path
) -> None:
    with od.OctogenControlPlaneResource(principal=PRINCIPAL).control_plane() as octogen:
        octogen.listings()
        server.expire()
        octogen.listings()
    assert server.count("token") == 2
    server.fail("list_bigquery_listing_resources", http(401), times=9)
    golden("errors", failure(OctogenMCPAuthenticationError))
    assert server.count("token") <= 4


def test_a_refresh_that_brings_the_refused_token_again_says_so(
    golden: Golden, server: OctogenServer, file: Path
) -> None:
    cached = {"access_token": "access-secret-of-a-cache", "expires_in": 300}
    server.fail("token", http(200, cached), times=2)
    said = failure(OctogenMCPAuthenticationError)
    golden("errors", said)


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (http(400, {"error": "invalid_grant"}), OctogenMCPAuthenticationError, "invalid_grant"),
        (http(401, {"error": "invalid_client"}), OctogenMCPAuthenticationError, "invalid_client"),
        (http(404, "<html>refresh-secret-0</html>"), OctogenMCPError, "404"),
        (http(200, {"access_token": ["access-secret-1"]}), OctogenMCPAuthenticationError, ""),
        (http(200, "<html>"), OctogenMCPError, "200"),
        (http(503), OctogenMCPError, "503"),
        (http(429, retry_after="0"), OctogenMCPRateLimitError, "429"),
    ],
)
def test_a_refresh_that_fails_keeps_the_token_and_shows_none(
    server: OctogenServer, file: Path, answer: list[bytes], kind: type[OctogenError], said: str
) -> None:
    server.fail("token", answer, times=9)
    message = failure(kind)
    assert said in message
    if kind is OctogenMCPAuthenticationError and said:
        assert "octogen-dagster login" in message
        assert server.count("token") == 1
    assert file.read_text() == "refresh-secret-0\n"


@pytest.mark.parametrize("answer", [http(500), http(503), http(429, retry_after="0")])
def test_a_failure_that_passes_is_retried(
    server: OctogenServer, file: Path, answer: list[bytes]
) -> None:
    server.fail("token", answer, times=2)
    call()
    assert server.refusals == 0
    assert file.read_text() == f"{server.refresh_token}\n"


def test_no_token_endpoint_holds_a_call(golden: Golden, server: OctogenServer, file: Path) -> None:
    def drip(_: object) -> Iterator[bytes]:
        yield http(length=1_000_000)[0]
        while not server.closing.wait(0.01):
            yield b" "

    server.fail("token", drip, times=9)
    golden("errors", failure(OctogenTimeoutError, deadline=1.0))


def test_a_refresh_that_is_answered_late_is_not_sent_again(
    server: OctogenServer, file: Path
) -> None:
    def late(request: Received) -> list[bytes]:
        answer = server._token(request)  # the old token is spent now
        server.closing.wait(1.5)
        return answer

    server.fail("token", late)
    reader = ["--project", PROJECT, "--principal", PRINCIPAL]
    CliRunner().invoke(main, ["bq", "autosubscribe", *reader, "--timeout", "1"])
    assert (server.count("token"), server.refusals) == (1, 0)
    assert file.read_text() == f"{server.refresh_token}\n" == "refresh-secret-1\n"


def test_a_refresh_goes_on_when_the_time_of_its_caller_is_over(
    golden: Golden, server: OctogenServer, file: Path
) -> None:
    endpoint = SlowEndpoint(server)
    for _ in range(2):  # the second one waits for the same answer
        golden("errors", failure(OctogenTimeoutError, deadline=0.2))
    endpoint.release(file.read_text)
    call()
    assert (server.count("token"), server.refusals) == (1, 0)


def test_a_tick_that_ends_leaves_the_refresh_to_itself(
    server: OctogenServer, file: Path, instance: dg.DagsterInstance
) -> None:
    endpoint = SlowEndpoint(server)
    datasets = od.build_linked_datasets_asset(control_plane=True)
    resources = {
        "analytics_hub": od.AnalyticsHubResource(project=PROJECT),
        "octogen_control_plane": od.OctogenControlPlaneResource(principal=PRINCIPAL),
    }
    sensor = od.build_listing_sensor(datasets, od.OctogenSource(), _tick_timeout=0.2)
    context = dg.build_sensor_context(instance=instance, resources=resources)
    assert isinstance(sensor(context), dg.SkipReason)
    endpoint.release(file.read_text)
    server.tools["list_bigquery_subscribers"] = {}
    sensor = od.build_listing_sensor(datasets, od.OctogenSource())
    for _ in range(4):
        assert isinstance(sensor(context), dg.SensorResult)
    assert (server.count("token"), server.refusals) == (1, 0)


@pytest.mark.long
def test_a_command_ends_when_the_refresh_that_it_gave_up_has_ended(
    golden: Golden, server: OctogenServer, file: Path
) -> None:
    endpoint = SlowEndpoint(server)
    command = "from octogen_dagster.cli.main import main; main()"
    doctor = ["doctor", "--principal", PRINCIPAL, "--timeout", "30"]
    with subprocess.Popen(
        [sys.executable, "-c", command, *doctor], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            said = next(line for line in process.stdout if "MCP login" in line)
            endpoint.release(file.read_text)
            process.communicate(timeout=POLL_SECONDS)
        finally:
            process.kill()
    golden("errors", said)
    assert process.returncode == 1
    assert server.refusals == 0


def test_a_file_that_another_program_is_writing_is_read_after_it(
    server: OctogenServer, file: Path
) -> None:
    file.write_text("")  # as Octogen's own commands do, under the same lock
    with open(file.with_name("refresh.lock"), "a") as lock, ThreadPoolExecutor(1) as threads:
        fcntl.flock(lock, fcntl.LOCK_EX)
        calling = threads.submit(call)
        assert not wait([calling], timeout=0.3).done
        file.write_text(server.refresh_token)
        fcntl.flock(lock, fcntl.LOCK_UN)
        calling.result(POLL_SECONDS)
    assert server.refusals == 0


@pytest.mark.parametrize("variable", ["REFRESH_TOKEN_FILE", "CLIENT_ID_FILE"])
def test_a_pipe_in_place_of_a_file_is_an_error(
    golden: Golden,
    server: OctogenServer,
    file: Path,
    variable: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe = file.with_name("pipe")
    os.mkfifo(pipe)
    monkeypatch.setenv(f"OCTOGEN_MCP_{variable}", str(pipe))
    monkeypatch.delenv("OCTOGEN_MCP_CLIENT_ID")
    if variable == "REFRESH_TOKEN_FILE":
        monkeypatch.setenv("OCTOGEN_MCP_CLIENT_ID", CLIENT)
    golden("errors", failure(OctogenMCPAuthenticationError))
    assert server.calls == []


def test_an_address_where_nobody_listens_is_an_error(
    golden: Golden, server: OctogenServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCTOGEN_MCP_TOKEN_ENDPOINT", "http://127.0.0.1:1/token")
    assert "http://127.0.0.1:1/token" in failure(OctogenConnectionError)
    monkeypatch.setenv("OCTOGEN_MCP_TOKEN_ENDPOINT", "http://auth.example/")
    with golden.raises(ValueError):
        call()
    assert file.read_text() == "refresh-secret-0\n"


@pytest.mark.parametrize(
    "content",
    [None, b" \n", b"refresh-secret-0 and more", b"caf\xc3\xa9"],
    ids=["missing", "empty", "two words", "not text"],
)
def test_a_file_without_a_token_is_an_error(
    golden: Golden, server: OctogenServer, file: Path, content: bytes | None
) -> None:
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    golden("errors", failure(OctogenMCPAuthenticationError))


def test_a_file_that_cannot_be_locked_is_an_error(server: OctogenServer, file: Path) -> None:
    file.with_name("refresh.lock").mkdir()
    assert f"{file} cannot be locked" in failure(OctogenMCPAuthenticationError)
    assert server.calls == []


def test_no_token_is_logged(
    server: OctogenServer, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("", "mcp", "client", "httpx", "httpx2", "httpcore", "httpcore2"):
        caplog.set_level("DEBUG", logger=name)
    call()
    assert "list_bigquery_listing_resources" in caplog.text
    assert SECRET not in caplog.text


class TestSources:
    """Of several settings the command counts, then the file, the refresh and the access token."""

    @pytest.fixture
    def set(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        def set_them(**settings: str) -> None:
            for name, value in settings.items():
                monkeypatch.setenv(f"OCTOGEN_MCP_{name}", value)

        return set_them

    def test_their_order(self, server: OctogenServer, file: Path, set: Callable[..., None]) -> None:
        (other_client := file.with_name("client-id")).write_text("client_of_another_login")
        set(
            CLIENT_ID_FILE=str(other_client),  # OCTOGEN_MCP_CLIENT_ID comes first
            ACCESS_TOKEN="access-secret-of-nobody",
            REFRESH_TOKEN="refresh-secret-of-nobody",
            TOKEN_COMMAND=f"echo {server.access_token}",
        )
        call()
        assert server.count("token") == 0
        set(TOKEN_COMMAND="")
        call()
        assert server.count("token") == 1
        set(REFRESH_TOKEN_FILE="", REFRESH_TOKEN=server.refresh_token)
        call()
        assert server.count("token") == 2
        set(REFRESH_TOKEN="", ACCESS_TOKEN=server.access_token)
        call()
        assert server.count("token") == 2
        set(ACCESS_TOKEN="")
        assert "OCTOGEN_MCP_TOKEN_COMMAND" in failure(OctogenMCPAuthenticationError)

    def test_the_files_of_the_last_login(
        self, server: OctogenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / ".config/octogen"
        folder.mkdir(parents=True)
        (folder / "mcp.refresh").write_text(server.refresh_token)
        (folder / "mcp.client-id").write_text(f"{CLIENT}\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        call()
        assert (folder / "mcp.refresh").read_text() == f"{server.refresh_token}\n"

    @pytest.mark.parametrize("scheme", ["", "file://"])
    def test_an_empty_file_begins_with_the_given_token(
        self, server: OctogenServer, file: Path, set: Callable[..., None], scheme: str
    ) -> None:
        file.write_text("\n")
        set(REFRESH_TOKEN=server.refresh_token, REFRESH_TOKEN_FILE=f"{scheme}{file}")
        call()
        server.expire()
        call()
        assert (server.refusals, file.read_text()) == (0, f"{server.refresh_token}\n")

    def test_a_refresh_token_without_a_file_warns_of_its_loss(
        self, server: OctogenServer, set: Callable[..., None], caplog: pytest.LogCaptureFixture
    ) -> None:
        set(REFRESH_TOKEN=server.refresh_token)
        assert "OCTOGEN_MCP_CLIENT_ID_FILE" in failure(OctogenMCPAuthenticationError)
        set(CLIENT_ID=CLIENT)
        with od.OctogenControlPlaneResource(principal=PRINCIPAL).control_plane() as octogen:
            octogen.listings()
            server.expire()
            octogen.listings()
        assert server.refusals == 0
        assert "is lost when this process ends" in caplog.text
        assert SECRET not in caplog.text

    def test_a_given_access_token_cannot_be_renewed(
        self, golden: Golden, server: OctogenServer, set: Callable[..., None]
    ) -> None:
        set(ACCESS_TOKEN="access-secret-of-nobody")
        golden("errors", failure(OctogenMCPAuthenticationError))
        set(ACCESS_TOKEN="access-secret-0 and more")
        golden("errors", failure(OctogenMCPAuthenticationError))


class TestCommand:
    """`OCTOGEN_MCP_TOKEN_COMMAND` prints an access token."""

    @pytest.fixture
    def run(self, server: OctogenServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        def run_it(program: str) -> None:
            command = f"{shlex.quote(sys.executable)} -c {shlex.quote(program)}"
            monkeypatch.setenv("OCTOGEN_MCP_TOKEN_COMMAND", command)

        return run_it

    @pytest.mark.parametrize(
        "printed", ["access-secret-0\nfor five minutes", '{"access_token": "access-secret-0"}']
    )
    def test_its_first_line_or_json(self, run: Callable[[str], None], printed: str) -> None:
        run(f"print({printed!r})")
        call()

    def test_it_runs_again_when_its_token_is_refused(
        self, server: OctogenServer, run: Callable[[str], None], tmp_path: Path
    ) -> None:
        runs = tmp_path / "runs"
        run(
            f"import os; open({str(runs)!r}, 'a').write('x');"
            f"print('access-secret', 2 - os.path.getsize({str(runs)!r}), sep='-')"
        )
        call()
        assert runs.read_text() == "xx"
        server.expire()
        failure(OctogenMCPAuthenticationError)

    @pytest.mark.parametrize(
        "program",
        [
            "print('access-secret-0 and more')",
            "pass",
            "import sys; print('access-secret-0'); sys.exit(3)",
            "import sys; sys.exit('refresh' + '-sec' + 'ret-0')",
        ],
        ids=["two words", "nothing", "status 3", "status 1"],
    )
    def test_its_output_is_not_quoted(
        self, golden: Golden, run: Callable[[str], None], program: str
    ) -> None:
        run(program)
        golden("errors", failure(OctogenMCPAuthenticationError))

    def test_it_may_not_print_without_end(self, run: Callable[[str], None]) -> None:
        run("import os\nwhile True: os.write(1, b'access-secret-0' * 1000)")
        assert "printed more than" in failure(OctogenMCPAuthenticationError)

    def test_it_has_limited_time(self, run: Callable[[str], None]) -> None:
        run("import time; time.sleep(100)")
        assert "within 1 s" in failure(OctogenMCPAuthenticationError, deadline=1.0)

    def test_one_that_cannot_be_started(
        self, golden: Golden, server: OctogenServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OCTOGEN_MCP_TOKEN_COMMAND", "/no/such/program access-secret-0")
        assert "No such file or directory" in failure(OctogenMCPAuthenticationError)
        monkeypatch.setenv("OCTOGEN_MCP_TOKEN_COMMAND", "echo 'access-secret-0")
        with golden.raises(ValueError) as caught:
            call()
        assert SECRET not in str(caught.value)
