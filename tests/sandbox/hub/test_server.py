"""The hub as a part of the sandbox."""

import logging
import re
import subprocess
import sys

import httpx
import pytest
from google.cloud import bigquery_analyticshub_v1 as ah

from octogen_dagster.sandbox.server import Sandbox
from tests.sandbox.hub.calls import SECONDS, connect, value

# Google's packages warn on standard error of a Python that they will not support much longer.
_PYTHON = [sys.executable, "-W", "ignore::FutureWarning", "-c"]
_COMMAND = [*_PYTHON, "from octogen_dagster.cli.main import main; main()", "sandbox"]


def test_a_sandbox_has_a_hub_only_if_asked() -> None:
    with pytest.raises(RuntimeError, match=r"has no hub: make it with Sandbox\(hub=True\)"):
        _ = Sandbox(catalogs=0, generation="seed").hub
    hub = Sandbox(catalogs=0, hub=True).hub
    for address in ("endpoint", "mcp_url", "token_endpoint", "authorization_server"):
        with pytest.raises(RuntimeError, match="before the sandbox runs"):
            getattr(hub, address)


def test_the_environment_has_its_addresses() -> None:
    with Sandbox(catalogs=1, hub=True, generation="seed") as sandbox:
        hub = sandbox.hub
        origin = sandbox.base_url.removesuffix("/v1")
        assert sandbox.environment == {
            "OCTOGEN_PLATFORM_API_KEY": sandbox.api_key,
            "OCTO_API_KEY": sandbox.api_key,
            "OCTOGEN_BASE_URL": sandbox.base_url,
            "OCTOGEN_MCP_URL": f"{origin}/mcp/",
            "OCTOGEN_MCP_TOKEN_ENDPOINT": f"{origin}/oauth2/token",
            "OCTOGEN_MCP_CLIENT_ID": hub.client_id,
            "OCTOGEN_MCP_REFRESH_TOKEN": hub.refresh_token,
            "ANALYTICS_HUB_EMULATOR_HOST": hub.endpoint,
        }
        headers = {"Authorization": f"Bearer {sandbox.api_key}"}
        assert len(httpx.get(f"{sandbox.base_url}/catalogs", headers=headers).json()) == 1
        assert httpx.get(f"{origin}/nothing").status_code == 404


def test_it_can_run_again_and_logs_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    sandbox = Sandbox(catalogs=0, hub=True)
    for _ in range(2):
        with sandbox:
            assert value(sandbox.hub, "list_bigquery_listing_resources") == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.slow
def test_a_plain_sandbox_needs_none_of_its_packages() -> None:
    program = """
import sys
from octogen_dagster.sandbox.hub.faults import HubFault
from octogen_dagster.sandbox.hub.state import GrantAfter
from octogen_dagster.sandbox.server import Sandbox
with Sandbox(catalogs=1) as sandbox:
    pass
found = {"grpc", "google.cloud", "mcp", "mcp_types", "httpx2"} & set(sys.modules)
assert not found, found
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.slow
def test_a_missing_package_is_named() -> None:
    program = """
import sys
sys.modules["mcp"] = None
from octogen_dagster.cli.main import main
main(["sandbox", "--hub"])
"""
    run = subprocess.run(
        [*_PYTHON, program], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 1
    assert run.stderr == (
        "Error: The sandbox cannot start: the hub of the sandbox needs mcp: "
        'pip install "octogen-dagster[sandbox,bigquery,mcp]"\n'
    )


@pytest.mark.slow
def test_the_command_shares_its_catalogs_until_ctrl_c() -> None:
    with subprocess.Popen(
        [*_COMMAND, "--hub", "--port", "0", "--catalogs", "acme,zen"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(10)]
        exports = dict(re.findall(r"^export (\w+)=(.+)$", "".join(lines), re.MULTILINE))
        form = {
            "grant_type": "refresh_token",
            "client_id": exports["OCTOGEN_MCP_CLIENT_ID"],
            "refresh_token": exports["OCTOGEN_MCP_REFRESH_TOKEN"],
        }
        with httpx.Client(transport=httpx.HTTPTransport(retries=10), timeout=SECONDS) as http:
            tokens = http.post(exports["OCTOGEN_MCP_TOKEN_ENDPOINT"], data=form).json()
        assert tokens["access_token"]
        client = connect(exports["ANALYTICS_HUB_EMULATOR_HOST"])
        exchange = "projects/octogen-sandbox/locations/us/dataExchanges/catalogs"
        request = ah.ListListingsRequest(parent=exchange)
        listings = client.list_listings(request=request, timeout=SECONDS)
        assert [listing.display_name for listing in listings] == ["acme", "zen"]
        process.send_signal(2)
        assert process.wait(timeout=30) == 0
        assert process.stderr
        assert process.stderr.read() == ""
