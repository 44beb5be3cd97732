"""Each guide of docs/ keeps its promise: its files and commands run in a project, in order."""

from __future__ import annotations

import csv
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from octogen_dagster import ProductSearch, scan_products
from octogen_dagster.bigquery.partitions import listing_partition_key
from octogen_dagster.sandbox.server import Sandbox
from tests.api.servers import RawServer, http
from tests.docs.blocks import BLOCKS, GUIDE_OF, Block
from tests.docs.commands import install_commands
from tests.docs.places import CATALOG, Place
from tests.docs.test_tutorial import missing
from tests.warehouses import ENGINES, Warehouse, needs_iceberg

FIRST_KINDS = {page: kind for kind, page in reversed(GUIDE_OF.items())}.values()
"""The kind of the first destination on each guide."""

PROJECT = {
    "pyproject.toml": """
[project]
name = "my_shops"
version = "0.1.0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "my_shops"
""",
    "src/my_shops/__init__.py": "",
    "src/my_shops/defs/__init__.py": "",
    "src/my_shops/definitions.py": """
from pathlib import Path

from dagster import definitions, load_from_defs_folder


@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
""",
    # In one process: a run of a guide has ten steps, and a process each would import Dagster.
    "src/my_shops/defs/executor.py": """
import dagster as dg

defs = dg.Definitions(executor=dg.in_process_executor)
""",
    ".dagster_home/dagster.yaml": "telemetry: {enabled: false}\nnux: {enabled: false}\n",
}
"""What `create-dagster project my_shops` writes, as far as a guide needs it."""


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Yield the shop of the guides as `octogen-dagster sandbox` serves it."""
    with Sandbox(catalogs={CATALOG: 250}, hub=True) as sandbox:
        sandbox.hub.share(CATALOG)
        yield Place(sandbox)


class Reader:
    """A reader who follows one guide in a project."""

    def __init__(self, folder: Path, place: Place, page: str, names: Mapping[str, str]) -> None:
        self.folder, self._place, self._names = folder, place, names
        self._blocks = [block for block in BLOCKS if block.page == page]
        assert self._blocks, page
        for name, text in PROJECT.items():
            self._write(name, text)
        commands = folder / "commands"
        commands.mkdir()
        install_commands(commands)
        self.environment = {
            **os.environ,
            "PATH": f"{commands}:{os.environ['PATH']}",
            "PYTHONPATH": str(folder / "src"),
            "DAGSTER_HOME": str(folder / ".dagster_home"),
            **{name: each for name, each in place.environment.items() if "API_KEY" not in name},
            "COLUMNS": "200",
        }

    def follow(self) -> None:
        """Write each file and run each command; outputs must be what the page shows."""
        for block, after in pairwise([*self._blocks, None]):
            assert block
            if "." in block.title:
                self._write(block.title, self.filled_in(block.source))
            elif block.language == "sh" and not block.not_run:
                printed = self.run("bash", "-euc", self.filled_in(block.source))
                if after and after.language == "text" and not after.title:
                    assert not missing(self.filled_in(after.source), printed), printed

    def run(self, *command: str) -> str:
        """Run a command in the project, and return what it printed."""
        ran = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert ran.returncode == 0, f"{' '.join(command)}:\n{ran.stdout}"
        return ran.stdout

    def instance(self) -> dg.DagsterInstance:
        """The Dagster instance of the project."""
        return dg.DagsterInstance.from_config(self.environment["DAGSTER_HOME"])

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def filled_in(self, source: str) -> str:
        for example, name in self._names.items():
            source = source.replace(example, name)
        return self._place.fill_in(source)


def block(page: str, title: str) -> Block:
    [found] = [each for each in BLOCKS if (each.page, each.title) == (page, title)]
    return found


def assert_shown(page: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Assert that the rows of a query are what the page shows of it."""
    assert rows
    for row in rows:
        values = ".*".join(re.escape(str(value)) for value in row.values())
        assert re.search(values, block(page, "output").source), row


@pytest.mark.long
@pytest.mark.parametrize(
    "warehouse",
    [pytest.param(kind, marks=ENGINES[kind].marks) for kind in FIRST_KINDS],
    indirect=True,
)
def test_warehouse_has_the_tables_of_its_guide(
    tmp_path: Path, place: Place, warehouse: Warehouse
) -> None:
    page = GUIDE_OF[warehouse.destination.kind]
    reader = Reader(tmp_path / "project", place, page, warehouse.examples)
    reader.environment |= warehouse.location.variables
    if warehouse.has_setup:
        warehouse.execute(reader.filled_in(block(page, "setup.sql").source))
    reader.follow()
    if any((each.page, each.title) == (page, "prices.sql") for each in BLOCKS):
        sql = reader.filled_in(block(page, "prices.sql").source)
        assert_shown(page, warehouse.query(sql))


@pytest.mark.long
def test_slack_gets_a_test_message_and_the_first_alert(tmp_path: Path, place: Place) -> None:
    page = "docs/notify-slack.md"
    with RawServer(lambda _: http(body="ok")) as slack:
        reader = Reader(tmp_path, place, page, {"https://hooks.slack.com": slack.origin})
        reader.follow()
        sensor = "octogen_products_price_list_alerts_slack"
        reader.run("dagster", "sensor", "preview", sensor, "-m", "my_shops.definitions")
    test, alert = (posted.json["blocks"][0]["elements"][0]["elements"] for posted in slack.received)
    assert test[1]["text"] == "Test message"
    assert alert[1]["url"] == listed_articles()[0]["product_url"]
    assert "150.00 → 122.00 EUR" in alert[2]["text"]


def test_sandbox_undercuts_the_first_price_that_the_slack_guide_lists(place: Place) -> None:
    sandbox = place.sandbox
    search = ProductSearch(catalogs=[CATALOG])
    read = scan_products(search, api_key=sandbox.api_key, base_url=sandbox.base_url).collect()
    undercut = []
    for article in listed_articles():
        url, currency = article["product_url"], article["currency"]
        [product] = read.filter(product_url=url, currency=currency, in_stock=True).to_dicts()
        undercut.append(product["current_price"] < 0.95 * float(article["price"]))
    assert undercut == [True, False]


def listed_articles() -> list[dict[str, str]]:
    """The price list of the Slack guide."""
    text = block("docs/notify-slack.md", "prices.csv").source
    return list(csv.DictReader(text.splitlines()))


@pytest.mark.long
def test_linked_products_are_queried_and_copied(tmp_path: Path, place: Place) -> None:
    page = "docs/query-in-bigquery.md"
    reader = Reader(tmp_path, place, page, {})
    reader.follow()
    _, *rows = block(page, "output").source.splitlines()
    assert reader.run("uv", "run", "python", "brands.py").splitlines() == rows
    assets = "octogen_linked_datasets,octogen_linked_products,octogen_linked_snapshot"
    partition = listing_partition_key(place.listing)
    with reader.instance() as instance:  # as the sensor does
        instance.add_dynamic_partitions("octogen_listings", [partition])
    reader.run("dg", "launch", "--assets", assets, "--partition", partition)


@needs_iceberg
@pytest.mark.long
def test_iceberg_has_the_tables_of_the_guide(tmp_path: Path, place: Place) -> None:
    page = "docs/to-iceberg-or-delta.md"
    delta = 'products = pl.scan_delta("lake/octogen/octogen_products").collect()\n'
    names = {"{delta: lake}": "{iceberg: lake}", delta: block(page, "iceberg.py").source}
    reader = Reader(tmp_path, place, page, names)
    reader.follow()
    reader.run("uv", "run", "python", "expire.py")
