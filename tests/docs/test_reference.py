"""The reference pages list all variables, commands, fields and metadata keys, and no others."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest

import octogen_dagster
from tests.commands import COMMANDS
from tests.docs.generate import FOLDER, pages

ROOT = Path(__file__).parents[2]
VARIABLES = (ROOT / "docs" / "reference" / "index.md").read_text()
METADATA = (ROOT / "docs" / "reference" / "metadata.md").read_text()
PACKAGE = Path(octogen_dagster.__file__).parent
SOURCE = "\n".join(path.read_text() for path in [*PACKAGE.rglob("*.py"), ROOT / "definitions.py"])
PAGES = pages()
WITHOUT_PREFIX = {
    "reading/statistics.py": "cost_saved_usd rate_limit_wait_seconds repeats_removed "
    "unknown_fields truncated empty",
    "frames/products.py": "price_changed effective_query_changed effective_query_differences",
    "details/scan.py": "found gone mismatched carried_over oldest_lookup only_changed",
    "brands/table.py": "stock_by_brand",
    "history/tracking.py": "snapshots",
    "position/table.py": "median_index not_found undercut_percent unmatched_percent",
    "position/asset.py": "unmatched price_index cheaper_and_more_expensive",
    "checks/checked_snapshot.py": "bad_rows bad_rows_by_rule",
    "checks/product_checks.py": "rows_low rows_high earlier_rows",
    "bigquery/linked_view.py": "read_by",
    "alerts/asset.py": "events",
    "url_lists/list_asset.py": "removed_urls",
    "url_lists/matching.py": "covered not_covered pending matched_by_url matched_by_page ties "
    "unmatched_products addresses_without_products addresses_in_doubt",
}
"""Names of metadata that get their prefix elsewhere, by the module that makes them."""
OF_COLUMNS = re.compile(r"octogen/(?:(?:price_p50|median_price|by)_\w+|\w+_changed)")
"""Names of metadata that are made from a column or a currency."""
OF_THE_DEMO = {"OCTOGEN_DEMO_SNAPSHOTS"}


def options(command: click.Command) -> list[click.Option]:
    return [each for each in command.params if isinstance(each, click.Option)]


def test_each_variable_of_the_package_is_there() -> None:
    names = set(re.findall(r"\bOCTO(?:GEN)?_[A-Z_]*[A-Z]\b", SOURCE)) - OF_THE_DEMO
    names |= {
        each.envvar
        for command in COMMANDS.values()
        for each in options(command)
        if isinstance(each.envvar, str)
    }
    told = set(re.findall(r"`([A-Z][A-Z_]+)`", VARIABLES))
    assert names <= told
    assert {name for name in told if name.startswith("OCTO")} <= names


def test_each_option_of_a_command_has_a_help() -> None:
    found = {" ".join(words): command for words, command in COMMANDS.items()}
    assert [words for words, each in found.items() for one in options(each) if not one.help] == []


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_up_to_date(name: str) -> None:
    """If it is not, run `python -m tests.docs.generate`."""
    assert (FOLDER / name).read_text() == PAGES[name]


def test_the_pages_say_what_the_doctor_spends_at_most() -> None:
    (limit,) = [each.default for each in COMMANDS["doctor",].params if each.name == "max_usd"]
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    said = {
        page.name: amounts
        for page in pages
        if (
            amounts := re.findall(
                r"(?:--ask|--max-usd)\b[^$]{0,60}\$(\d[\d.]*\d)", page.read_text()
            )
        )
    }
    assert said == {"README.md": [f"{limit}"], "doctor.md": [f"{limit}"]}


def test_metadata_that_is_named_is_there() -> None:
    golden = json.loads((ROOT / "tests" / "golden" / "snapshot_metadata.json").read_text())
    made = {*golden["materialization"], *re.findall(r"octogen/[a-z_0-9]+", SOURCE)}
    for module, names in WITHOUT_PREFIX.items():
        source = (PACKAGE / module).read_text()
        made |= {f"octogen/{each}" for each in names.split() if re.search(rf"\b{each}\b", source)}
    named = set(re.findall(r"`(octogen/[a-z_0-9]+)", METADATA))
    assert {name for name in named - made if not OF_COLUMNS.fullmatch(name)} == set()


def test_metadata_of_the_package_is_named() -> None:
    made = set(re.findall(r'"(octogen/[a-z_0-9]*[a-z0-9])"', SOURCE))
    assert made - {"octogen/row"} <= set(re.findall(r"`(octogen/[a-z_0-9]+)", METADATA))
