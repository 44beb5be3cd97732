"""Commands work with the hub of the sandbox, and the command of the sandbox starts it."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import grpc
import httpx
import pytest
from click.testing import CliRunner
from google.cloud import bigquery_analyticshub_v1 as ah

from octogen_dagster.cli.main import main
from octogen_dagster.sandbox.server import Sandbox
from tests.servers.octogen_mcp import PRINCIPAL, PROJECT

SECONDS = 30

pytestmark = pytest.mark.slow

# Google's packages warn on standard error of a Python that they will not support much longer.
_PYTHON = [sys.executable, "-W", "ignore::FutureWarning", "-c"]


def test_a_catalog_is_subscribed_to_once(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--project", PROJECT, "--principal", PRINCIPAL, "--apply", "--json"]
    with Sandbox(catalogs=0, hub=True) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        sandbox.hub.share("kumo")
        for action in ("subscribed", "already_active"):
            done = CliRunner().invoke(main, ["bq", "autosubscribe", *arguments])
            assert json.loads(done.stdout)["summary"] == {action: 1}
        (subscription,) = sandbox.hub.subscriptions
    assert subscription.catalog == "kumo"


def test_a_missing_package_is_named() -> None:
    program = """
import sys
sys.modules["mcp"] = None
from octogen_dagster.cli.main import main
main(["sandbox", "--hub"])
"""
    run = subprocess.run([*_PYTHON, program], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr == (
        "Error: The sandbox cannot start: the sandbox's hub needs mcp. "
        'Add "octogen-dagster[sandbox,bigquery,mcp]" to your project\'s dependencies.\n'
    )


@pytest.mark.long
def test_the_command_shares_its_catalogs_until_ctrl_c() -> None:
    command = "from octogen_dagster.cli.main import main; main()"
    with subprocess.Popen(
        [*_PYTHON, command, "sandbox", "--hub", "--port", "0", "--catalogs", "acme,zen"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        exports = dict[str, str]()
        while "ANALYTICS_HUB_EMULATOR_HOST" not in exports:
            line = process.stdout.readline()
            assert line, "the command ended"
            exports |= dict(re.findall(r"^export (\w+)=(.+)$", line))
        token = exports["OCTOGEN_MCP_ACCESS_TOKEN"]
        question = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        with httpx.Client(transport=httpx.HTTPTransport(retries=10), timeout=SECONDS) as http:
            http.headers["Accept"] = "application/json, text/event-stream"
            for sent, status in (("", 401), (f"Bearer {token}", 200)):
                answer = http.post(
                    exports["OCTOGEN_MCP_URL"], json=question, headers={"Authorization": sent}
                )
                assert answer.status_code == status
        assert len(answer.json()["result"]["tools"]) == 4
        channel = grpc.insecure_channel(exports["ANALYTICS_HUB_EMULATOR_HOST"])
        transport = ah.AnalyticsHubServiceClient.get_transport_class("grpc")(channel=channel)
        google = ah.AnalyticsHubServiceClient(transport=transport)
        exchange = "projects/octogen-sandbox/locations/us/dataExchanges/catalogs"
        listed = google.list_listings(parent=exchange, timeout=SECONDS)
        assert [each.display_name for each in listed] == ["acme", "zen"]
        process.send_signal(2)
        assert process.wait(timeout=30) == 0
        assert process.stderr
        assert process.stderr.read() == ""
