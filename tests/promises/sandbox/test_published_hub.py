"""Programs of their own work with the hub: Octogen's published ones, and the sandbox's command.

The published programs call Analytics Hub at Google and have no option for another address, so they
run with a client class of Google's that is connected to the hub. They are loaded by the entry
points of the published package, because this project installs commands of the same names.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from typing import Any

import grpc
import httpx
import httpx2
import pytest
from google.cloud import bigquery_analyticshub_v1 as ah
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult

from octogen_dagster.sandbox.server import Sandbox
from tests.servers.octogen_mcp import PRINCIPAL, PROJECT

SECONDS = 30

pytestmark = pytest.mark.slow

# Google's packages warn on standard error of a Python that they will not support much longer.
_PYTHON = [sys.executable, "-W", "ignore::FutureWarning", "-c"]
_PUBLISHED = """
import importlib.metadata, sys
import grpc
from google.cloud import bigquery_analyticshub_v1 as ah

endpoint, name, *sys.argv[1:] = sys.argv[1:]
client_class = ah.AnalyticsHubServiceClient
transport = client_class.get_transport_class("grpc")
ah.AnalyticsHubServiceClient = lambda: client_class(
    transport=transport(channel=grpc.insecure_channel(endpoint))
)
programs = importlib.metadata.distribution("octogen-ai-sdk").entry_points
raise SystemExit(programs[name].load()())
"""


def published(sandbox: Sandbox, name: str, *arguments: str) -> Any:
    """The output of a published program."""
    own = {name: each for name, each in os.environ.items() if not name.startswith("OCTO")}
    done = subprocess.run(
        [*_PYTHON, _PUBLISHED, sandbox.hub.endpoint, name, *arguments, "--json", "--apply"],
        env=own | sandbox.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def statuses(sandbox: Sandbox) -> dict[str, tuple[str, str | None]]:
    """The status and the reason of each catalog, which the client of `mcp` is told."""

    async def call() -> Any:
        token = sandbox.environment["OCTOGEN_MCP_ACCESS_TOKEN"]
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=SECONDS) as http,
            Client(streamable_http_client(sandbox.hub.mcp_url, http_client=http)) as client,
        ):
            result = await client.call_tool("list_bigquery_subscribers", {})
            assert isinstance(result, CallToolResult)
            return result.structured_content

    cells = asyncio.run(call())["result"]["cells"]
    return {cell["catalogKey"]: (cell["status"], cell["reasonCode"]) for cell in cells}


def test_the_published_programs_subscribe() -> None:
    with Sandbox(catalogs=0, hub=True) as sandbox:
        sandbox.hub.share("kumo")
        reader = ("--project", PROJECT, "--principal", PRINCIPAL)
        done = published(sandbox, "octogen-bq-autosubscribe", *reader)
        assert done["summary"] == {"subscribed": 1}
        assert statuses(sandbox) == {"kumo": ("active", None)}
        listing = ("--listing", sandbox.hub.share("strada"), "--project", PROJECT)
        for is_there in (False, True):
            done = published(sandbox, "octogen-bq-subscribe", *listing)
            assert done["already_subscribed"] is is_there
        assert [entry.catalog for entry in sandbox.hub.subscriptions] == ["kumo", "strada"]


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
        "Error: The sandbox cannot start: the sandbox's hub needs mcp: "
        'pip install "octogen-dagster[sandbox,bigquery,mcp]"\n'
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
