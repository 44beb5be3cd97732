"""Each extra works alone: an environment that has it and no other does what the extra is for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from octogen_dagster.sandbox.server import Sandbox
from tests.ports import free_port
from tests.promises.conftest import bigquery_server, postgres_server, snowflake_server
from tests.servers.google import LISTING
from tests.servers.octogen_mcp import CLIENT, PRINCIPAL, OctogenServer
from tests.warehouses import ENGINES, Warehouse

__all__ = ["bigquery_server", "postgres_server", "snowflake_server"]

pytestmark = [pytest.mark.slow, pytest.mark.world, pytest.mark.timeout(300)]

ROOT = Path(__file__).parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
OF_ALL = EXTRAS.pop("all")
NEEDED = {name: engine.marks for name, engine in ENGINES.items()}
NONE = "no extra"
COUNT = 40
DEFINITIONS = """
import dagster as dg
import os
from octogen_dagster import *

products = build_products_asset("products")
history = build_product_history_asset(products)
assets = [products, history]
resources = {
    "octogen": OctogenResource(catalog_source=ShopCatalogs([os.environ["SHOP"]])),
    "io_manager": ParquetSnapshotIOManager(base_dir="snapshots"),
}
"""
DEFS = "defs = dg.Definitions(assets, resources=resources, executor=dg.in_process_executor)"
WAIT_SECONDS = 120.0


class Environment(NamedTuple):
    """An environment with one extra, and a project in a folder whose key is that of a sandbox."""

    folder: Path
    variables: Mapping[str, str]

    def run(self, *command: str) -> str:
        """Run a command of the environment, and return what it printed."""
        program, *words = command
        done = subprocess.run(
            [str(self.folder / "environment/bin" / program), *words],
            cwd=self.folder,
            env={**self.variables},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    @contextmanager
    def running(self, program: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command of the environment until the block ends."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [str(self.folder / "environment/bin" / program), *words],
                cwd=self.folder,
                env={**self.variables},
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)

    def until(self, is_there: Callable[[], object]) -> None:
        """Wait for something that a command which runs brings about."""
        ends_at = time.monotonic() + WAIT_SECONDS
        while not is_there():
            assert time.monotonic() < ends_at, (self.folder / "log").read_text()
            time.sleep(0.1)

    def materialize(self, lines: str = "") -> None:
        """Materialize the project's assets, with those that further lines add."""
        (self.folder / "definitions.py").write_text(f"{DEFINITIONS}{lines}\n{DEFS}\n")
        self.run("dagster", "asset", "materialize", "--select", "*", "-f", "definitions.py")
        assert pl.read_parquet(self.folder / "snapshots/products.parquet").height == COUNT

    def load_table(self, warehouse: Warehouse) -> None:
        """Load the products into a table, and again when the table has other rows."""
        kind, settings, variables = warehouse.location
        there = self._replace(variables={**self.variables, **variables})
        table = f"""
from octogen_dagster.tables import {kind.__name__}
warehouse = {kind.__name__}(**{settings!r})
assets.append(build_table_asset(products, warehouse, retry_policy=dg.RetryPolicy(max_retries=0)))
"""
        there.materialize(table)
        first = {row["uuid"] for row in warehouse.rows("products")}
        warehouse.execute(f"DELETE FROM {warehouse.schema}.products WHERE uuid < '8'")
        there.materialize(table)
        assert {row["uuid"] for row in warehouse.rows("products")} == first
        assert len(first) == COUNT


def no_extra(environment: Environment, _request: Any) -> None:
    environment.materialize()
    first = pl.read_parquet(environment.folder / "snapshots/products.parquet").row(0, named=True)
    query = f"SELECT title FROM products_history WHERE uuid = '{first['uuid']}'"
    printed = environment.run("octogen-dagster", "sql", query, "--base-dir", "snapshots", "--csv")
    assert first["title"] in printed


def sandbox(environment: Environment, _request: Any) -> None:
    environment.materialize(f"""
from octogen_dagster.sandbox.server import Sandbox
octogen = Sandbox(catalogs=1, products={COUNT}).__enter__()
shops = ShopCatalogs(octogen.hosts)
resources["octogen"] = OctogenResource(
    api_key=octogen.api_key, base_url=octogen.base_url, catalog_source=shops
)
""")


def ui(environment: Environment, _request: Any) -> None:
    environment.materialize()
    port = free_port()
    address = f"http://127.0.0.1:{port}/graphql"
    query = {"query": "{ assetNodes { assetKey { path } assetMaterializations { runId } } }"}

    def shown() -> dict[str, int]:
        request = urllib.request.Request(
            address, json.dumps(query).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                nodes = json.load(answer)["data"]["assetNodes"]
        except OSError:
            return {}
        return {node["assetKey"]["path"][0]: len(node["assetMaterializations"]) for node in nodes}

    words = ("-h", "127.0.0.1", "-p", str(port), "-f", "definitions.py")
    with environment.running("dagster-webserver", *words):
        environment.until(shown)
        assert shown() == {"products": 1, "products_history": 1}


def mcp(environment: Environment, _request: Any) -> None:
    with OctogenServer() as server:
        server.tools["list_bigquery_listing_resources"] = [{"listingResource": LISTING}]
        login = {"OCTOGEN_MCP_CLIENT_ID": CLIENT, "OCTOGEN_MCP_REFRESH_TOKEN": server.refresh_token}
        variables = {**environment.variables, **server.environment, **login}
        program = f"""
from octogen_dagster import *
with OctogenControlPlaneResource(principal={PRINCIPAL!r}).control_plane() as octogen:
    print(octogen.listings())
"""
        printed = environment._replace(variables=variables).run("python", "-c", program)
    assert LISTING in printed


def report(environment: Environment, _request: Any) -> None:
    environment.materialize()
    words = ("--base-dir", "snapshots", "--asset", "products_history", "--out", "report.html")
    environment.run("octogen-dagster", "report", *words)
    assert "vegaEmbed" in (environment.folder / "report.html").read_text()


def load_table(environment: Environment, request: pytest.FixtureRequest) -> None:
    """Load a table into the engine of an extra."""
    engine = ENGINES[request.node.callspec.params["extra"]]
    in_folder = engine.server == "tmp_path"
    server = environment.folder if in_folder else request.getfixturevalue(engine.server)
    with closing(engine(server)) as warehouse:
        environment.load_table(warehouse)


USES: Mapping[str, Callable[[Environment, Any], None]] = {
    NONE: no_extra,
    **dict.fromkeys(ENGINES, load_table),
    **{use.__name__: use for use in (mcp, report, sandbox, ui)},
}


def test_all_is_each_extra() -> None:
    assert [f"octogen-dagster[{','.join(sorted(EXTRAS))}]"] == OF_ALL


@pytest.mark.parametrize(
    "extra", [NONE, *(pytest.param(name, marks=NEEDED.get(name, ())) for name in EXTRAS)]
)
def test_an_extra_alone_does_what_it_is_for(
    extra: str, wheel: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    wanted = "" if extra == NONE else f"[{extra}]"
    for command in (
        ["uv", "venv", "-q", "--python", python, "environment"],
        ["uv", "pip", "install", "-q", "--python", "environment", f"{wheel}{wanted}"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True)
    (tmp_path / "dagster.yaml").write_text("{telemetry: {enabled: false}, nux: {enabled: false}}")
    with Sandbox(catalogs=1, products=COUNT) as octogen:
        variables = {
            "PATH": os.environ["PATH"],
            "DAGSTER_HOME": str(tmp_path),
            "OCTOGEN_BASE_URL": octogen.base_url,
            "OCTOGEN_PLATFORM_API_KEY": octogen.api_key,
            "SHOP": octogen.hosts[0],
        }
        USES[extra](Environment(tmp_path, variables), request)
