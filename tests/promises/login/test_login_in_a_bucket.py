"""Where there is no disk, a login is kept in a bucket, and no token is lost between processes."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

import octogen_dagster as od
from octogen_dagster import errors
from octogen_dagster.bigquery.partitions import listing_partition_key
from octogen_dagster.cli.main import main
from octogen_dagster.control_plane import login_bucket, refresh
from octogen_dagster.doctor.checks import diagnose
from tests.api.servers import Received, http
from tests.messages import Golden
from tests.promises.control_plane import SECRET, SlowEndpoint, failure_of
from tests.promises.login.control_plane_sessions import side_by_side
from tests.promises.yaml.yaml_projects import LINKED, load
from tests.proxy import DENIED, Proxy
from tests.servers.buckets import S3Bucket
from tests.servers.google import LISTING
from tests.servers.octogen_mcp import CLIENT, PRINCIPAL, PROJECT, OctogenServer

PROCESSES, SESSIONS = 8, 50
LEASE = "login/refresh.lease"
TOKEN, CLIENT_ID = "login/refresh", "login/refresh.client-id"


@pytest.fixture
def bucket(s3: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Bucket]:
    """An empty bucket, whose credentials are in the environment."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIDTESTKEY",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3.port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    yield S3Bucket(s3)
    s3.reset()


@pytest.fixture
def uri(server: OctogenServer, bucket: S3Bucket) -> str:
    """Where the login is."""
    bucket.put(TOKEN, server.refresh_token.encode())
    bucket.put(CLIENT_ID, CLIENT.encode())
    server.expires_in = 0
    return f"s3://{bucket.name}/{TOKEN}"


def call(uri: str, deadline: float = 60.0) -> None:
    resource = od.OctogenControlPlaneResource(principal=PRINCIPAL, token_uri=uri)
    with resource.control_plane(deadline) as octogen:
        octogen.listings()


def failure(kind: type[errors.OctogenError], uri: str, deadline: float = 60.0) -> str:
    return failure_of(kind, lambda: call(uri, deadline))


def stored(bucket: S3Bucket) -> str:
    return bucket.get(TOKEN).decode().strip()


def lease(bucket: S3Bucket, until: float) -> None:
    bucket.put(LEASE, json.dumps({"holder": "another", "until": until}).encode())


@pytest.mark.slow
def test_after_a_login_nobody_is_needed(
    server: OctogenServer,
    bucket: S3Bucket,
    browser: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = f"s3://{bucket.name}/{TOKEN}"
    for _ in range(2):  # also where there is one
        done = CliRunner().invoke(main, ["login", "--port", "0", "--token-uri", uri])
        assert (done.exit_code, done.stderr) == (0, "")
        assert f"export OCTOGEN_MCP_TOKEN_URI={uri}" in done.stdout.splitlines()
        assert SECRET not in done.output
        assert stored(bucket) == server.refresh_token
    assert bucket.names() == [TOKEN, CLIENT_ID, LEASE, f"{TOKEN}.redirect-uri"]
    call(uri)
    assert stored(bucket) == server.refresh_token
    monkeypatch.setenv("OCTOGEN_MCP_TOKEN_URI", uri)
    command = ["bq", "autosubscribe", "--project", PROJECT, "--principal", PRINCIPAL, "--json"]
    server.tools["list_bigquery_subscribers"] = {}
    done = CliRunner().invoke(main, command)
    assert (done.exit_code, done.stderr) == (0, "")
    lines = str(diagnose(control_plane=od.OctogenControlPlaneResource(principal=PRINCIPAL)))
    assert any(line.startswith("ok       MCP login: ") for line in lines.splitlines())
    assert server.refusals == 0


def test_a_path_is_a_file_with_the_client_id_beside_it(
    server: OctogenServer, tmp_path: Path, browser: list[str]
) -> None:
    path = tmp_path / "login/refresh"
    done = CliRunner().invoke(main, ["login", "--port", "0", "--token-uri", str(path), "--json"])
    result = json.loads(done.stdout)
    assert result["token_uri"] == result["refresh_token_file"] == str(path)
    assert result["client_id_file"] == f"{path}.client-id"
    call(str(path))
    call(f"file://{path}")
    assert path.read_text() == f"{server.refresh_token}\n"


def test_yaml_names_it() -> None:
    attributes = {"project": PROJECT, "principal": PRINCIPAL, "token_uri": "s3://bucket/refresh"}
    with load(attributes, LINKED) as (_, defs):
        assert defs.resources
        assert defs.resources["octogen_control_plane"].token_uri == "s3://bucket/refresh"


def test_a_lease_is_waited_for_and_taken_over_when_it_has_ended(
    golden: Golden, server: OctogenServer, bucket: S3Bucket, uri: str
) -> None:
    lease(bucket, time.time() + 100)
    for deadline in (0.3, 3, 30):  # a busy machine takes long to reach the bucket
        said = failure(errors.OctogenTimeoutError, uri, deadline=deadline)
        if "Another process is replacing it" in said:
            break
    golden("errors", said, deadline=f"{deadline:g} s")
    assert server.calls == []
    lease(bucket, time.time() - 1)
    call(uri)
    bucket.put(LEASE, b"not a lease")
    call(uri)
    for until in (4e9, 1e300):  # 2096, and no time at all: no process has one for so long
        lease(bucket, until)
        call(uri)
    assert stored(bucket) == server.refresh_token
    assert server.refusals == 0


def test_a_bucket_that_cannot_be_written_to_costs_no_token(
    golden: Golden, server: OctogenServer, bucket: S3Bucket, uri: str
) -> None:
    bucket.proxy.is_denied = True
    said = failure(errors.OctogenMCPAuthenticationError, uri)
    golden("errors", said)
    bucket.proxy.is_denied = False
    missing = f"{uri}-of-nobody"
    golden("errors", failure(errors.OctogenMCPAuthenticationError, missing))
    assert server.calls == []


def key_of(head: bytes) -> str:
    return head.split()[1].decode().partition("?")[0].removeprefix("/").partition("/")[2]


def test_reading_and_writing_are_all_the_rights_that_a_login_needs(
    golden: Golden,
    server: OctogenServer,
    bucket: S3Bucket,
    uri: str,
    browser: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whom S3 does not let list a bucket, it denies what is not there."""

    def denied_if_absent(head: bytes) -> bytes | None:
        reads = head.startswith((b"GET ", b"HEAD "))
        return DENIED if reads and key_of(head) not in bucket.names() else None

    bucket.proxy.answer = denied_if_absent
    call(uri)
    assert stored(bucket) == server.refresh_token
    new = f"{uri}-of-a-login"
    done = CliRunner().invoke(main, ["login", "--port", "0", "--token-uri", new])
    assert (done.exit_code, done.stderr) == (0, "")
    assert bucket.get(f"{TOKEN}-of-a-login").decode().strip() == server.refresh_token
    monkeypatch.setenv("OCTOGEN_MCP_REFRESH_TOKEN", server.refresh_token)
    golden("errors", failure(errors.OctogenMCPAuthenticationError, f"{uri}-of-nobody"))
    assert server.refusals == 0


@pytest.mark.parametrize("condition", ["if-match", "if-none-match"])
def test_a_store_without_conditional_writes_costs_no_token(
    golden: Golden, server: OctogenServer, bucket: S3Bucket, uri: str, condition: str
) -> None:
    refused = b"HTTP/1.1 412 Precondition Failed\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    bucket.proxy.answer = lambda head: refused if f"{condition}: ".encode() in head else None
    said = failure(errors.OctogenMCPAuthenticationError, uri)
    golden("errors", said)
    assert server.calls == []


@pytest.fixture
def hanging(bucket: S3Bucket) -> Iterator[None]:
    """The bucket answers no request until the test is over."""
    over = threading.Event()

    def hang(_head: bytes) -> bytes:
        over.wait(100)
        return DENIED

    bucket.proxy.answer = hang
    yield
    over.set()


def test_a_bucket_that_hangs_is_named(
    server: OctogenServer, uri: str, hanging: None, instance: dg.DagsterInstance
) -> None:
    said = f"The refresh token {uri} did not respond within "
    resource: Any = od.OctogenControlPlaneResource(principal=PRINCIPAL, token_uri=uri)
    datasets = od.build_linked_datasets_asset(control_plane=True)
    sensor = od.build_listing_sensor(datasets, od.OctogenSource(), _tick_timeout=0.2)
    resources = {
        "analytics_hub": od.AnalyticsHubResource(project=PROJECT),
        "octogen_control_plane": resource,
    }
    tick = sensor(dg.build_sensor_context(instance=instance, resources=resources))
    assert isinstance(tick, dg.SkipReason)
    assert said in str(tick.skip_message)
    found = diagnose(control_plane=resource, timeout=6)
    assert any(each.message.startswith(f"The refresh token {uri} ") for each in found.findings)
    assert server.calls == []


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("s4://bucket/login", "token_uri 's4://bucket/login' is not a supported location"),
        ("s3://bucket", "token_uri 's3://bucket' "),
    ],
)
def test_a_wrong_uri_is_told_as_one(server: OctogenServer, uri: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call(uri)


def test_the_client_of_a_login_is_beside_it(
    server: OctogenServer, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCTOGEN_MCP_CLIENT_ID", "client-of-another-login")
    call(uri)
    assert server.grants[0]["client_id"] == CLIENT


def test_an_object_that_is_not_there_begins_with_the_given_token(
    server: OctogenServer, bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCTOGEN_MCP_TOKEN_URI", f"s3://{bucket.name}/{TOKEN}")
    monkeypatch.setenv("OCTOGEN_MCP_CLIENT_ID", CLIENT)
    monkeypatch.setenv("OCTOGEN_MCP_REFRESH_TOKEN", server.refresh_token)
    with od.OctogenControlPlaneResource(principal=PRINCIPAL).control_plane() as octogen:
        octogen.listings()
        server.expire()
        octogen.listings()
    assert (server.refusals, stored(bucket)) == (0, server.refresh_token)


def test_a_lease_outlives_the_exchange_that_it_protects(
    server: OctogenServer, bucket: S3Bucket, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storing = refresh._MAX_STORE_SECONDS
    monkeypatch.setattr(refresh, "_EXCHANGE_TIMEOUT", 4)
    monkeypatch.setattr(login_bucket, "LEASE_SECONDS", storing + 4)
    seen: list[float] = []

    def hang(_request: Received) -> list[bytes]:
        seen.append(json.loads(bucket.get(LEASE))["until"] - time.time())
        server.closing.wait(100)
        return []

    server.fail("token", hang, times=9)
    assert "token endpoint" in failure(errors.OctogenTimeoutError, uri)
    assert seen[0] > storing
    assert json.loads(bucket.get(LEASE))["until"] == 0


def test_a_bucket_that_answers_too_late_for_an_exchange_costs_no_token(
    golden: Golden, server: OctogenServer, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login_bucket, "LEASE_SECONDS", refresh._MAX_STORE_SECONDS)
    golden("errors", failure(errors.OctogenTimeoutError, uri))
    assert server.calls == []


def test_a_new_token_that_cannot_be_stored_is_an_error_that_says_to_log_in(
    golden: Golden, server: OctogenServer, bucket: S3Bucket, uri: str
) -> None:
    def deny(request: Received) -> list[bytes]:
        bucket.proxy.is_denied = True
        return server._token(request)

    server.fail("token", deny)
    golden("errors", failure(errors.OctogenMCPAuthenticationError, uri))


@pytest.mark.parametrize("place", [TOKEN, LEASE])
def test_an_answer_that_is_lost_loses_no_token(
    server: OctogenServer, bucket: S3Bucket, uri: str, place: str
) -> None:
    proxy, head = bucket.proxy, f"PUT /{bucket.name}/{place} ".encode()

    def cut() -> None:
        seen = len(proxy.heads)
        while not stop.wait(0.001):
            if any(each.startswith(head) for each in proxy.heads[seen:]):
                proxy.cuts_next = True
                return

    stop = threading.Event()
    watcher = threading.Thread(target=cut)
    watcher.start()
    try:
        call(uri)
    finally:
        stop.set()
        watcher.join()
    call(uri)
    assert stored(bucket) == server.refresh_token
    assert server.refusals == 0


def test_a_process_whose_lease_was_taken_without_an_answer_has_it(
    golden: Golden, server: OctogenServer, bucket: S3Bucket, uri: str
) -> None:
    def cut(head: bytes) -> None:
        bucket.proxy.cuts_next = head.startswith(f"PUT /{bucket.name}/{LEASE} ".encode())

    bucket.proxy.answer = cut
    golden("errors", failure(errors.OctogenConnectionError, uri))
    bucket.proxy.reset()
    call(uri, deadline=5)
    assert stored(bucket) == server.refresh_token


def test_a_token_that_a_login_replaced_meanwhile_is_kept(
    server: OctogenServer, bucket: S3Bucket, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    def replace(request: Received) -> list[bytes]:
        answer = server._token(request)
        bucket.put(TOKEN, b"refresh-secret-of-a-login")
        return answer

    server.fail("token", replace)
    call(uri)
    assert f"refresh token {uri}" in caplog.text
    assert "log in again" not in caplog.text
    assert stored(bucket) == "refresh-secret-of-a-login"


def test_a_refresh_goes_on_when_the_time_of_its_caller_is_over(
    golden: Golden, server: OctogenServer, bucket: S3Bucket, uri: str
) -> None:
    server.expires_in = 300
    endpoint = SlowEndpoint(server)
    for _ in range(2):  # the second one waits for the same answer
        golden("errors", failure(errors.OctogenTimeoutError, uri, deadline=1))
    endpoint.release(lambda: stored(bucket))
    call(uri)
    assert (server.count("token"), server.refusals) == (1, 0)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_processes_side_by_side_lose_no_token(
    server: OctogenServer, bucket: S3Bucket, uri: str
) -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("OCTOGEN_MCP", "AWS_"))
    } | {"OCTOGEN_MCP_TOKEN_URI": uri}
    # No session waits longer than the 120 seconds of a call, which are less than a lease.
    side_by_side(environment, PRINCIPAL, at_once=PROCESSES, number=SESSIONS)
    assert (server.refusals, server.count("token")) == (0, PROCESSES * SESSIONS)
    assert stored(bucket) == server.refresh_token


KILLED = """
import os, signal, sys
import obstore
from octogen_dagster import OctogenControlPlaneResource

put, left = obstore.put, int(sys.argv[1])

def put_or_die(*arguments, **options):
    global left
    left -= 1
    if left == 0 and sys.argv[2] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = put(*arguments, **options)
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

obstore.put = put_or_die
resource = OctogenControlPlaneResource(principal=sys.argv[3], token_uri=sys.argv[4])
with resource.control_plane() as octogen:
    octogen.listings()
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("step", "moment"),
    # The lease, the old token, the new token and the end of the lease are written.
    [(step, moment) for step in (1, 2, 3, 4) for moment in ("before", "after")],
)
def test_a_process_that_is_killed_costs_a_login_at_worst(
    golden: Golden, server: OctogenServer, bucket: S3Bucket, uri: str, step: int, moment: str
) -> None:
    command = [sys.executable, "-c", KILLED, str(step), moment, PRINCIPAL, uri]
    done = subprocess.run(command, check=False)
    assert done.returncode == -signal.SIGKILL
    if LEASE in bucket.names():
        lease(bucket, time.time() - 1)  # some minutes later
    if (step, moment) == (3, "before"):  # Octogen has spent the old token
        said = failure(errors.OctogenMCPAuthenticationError, uri)
        golden("errors", said)
        assert "Run `octogen-dagster login`" in said
    else:
        call(uri)
        assert stored(bucket) == server.refresh_token
        assert server.refusals == 0


def test_a_store_that_does_not_answer_is_an_error_that_passes(
    golden: Golden, server: OctogenServer, bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    said = failure(errors.OctogenConnectionError, f"s3://{bucket.name}-elsewhere/refresh")
    golden("errors", said)
    assert server.calls == []


def test_no_token_is_logged(
    server: OctogenServer, bucket: S3Bucket, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("", "mcp", "client", "httpx2", "httpcore2", "botocore"):
        caplog.set_level("DEBUG", logger=name)
    call(uri)
    assert SECRET not in caplog.text


def test_no_token_is_in_the_events_of_a_run_or_in_a_pickle(
    server: OctogenServer, uri: str, instance: dg.DagsterInstance
) -> None:
    key = listing_partition_key(LISTING)
    instance.add_dynamic_partitions("octogen_listings", [key])
    resource: Any = od.OctogenControlPlaneResource(principal=PRINCIPAL, token_uri=uri)

    def events() -> str:
        result = dg.materialize(
            [od.build_linked_datasets_asset(control_plane=True, retry_policy=None)],
            partition_key=key,
            instance=instance,
            raise_on_error=False,
            resources={
                "analytics_hub": od.AnalyticsHubResource(project=PROJECT),
                "octogen_control_plane": resource,
            },
        )
        assert not result.success
        return "\n".join(map(repr, instance.all_logs(result.run_id)))

    shared = events()
    assert "listing projects/octo/" in shared  # the login works
    server.fail("token", http(400, {"error": "invalid_grant"}))
    refused = events()
    assert "Run `octogen-dagster login`" in refused
    assert SECRET not in shared + refused + repr(resource) + resource.model_dump_json()
    assert SECRET.encode() not in pickle.dumps(resource)
