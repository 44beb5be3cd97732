"""A mistyped setting is an error, and a key that is written out is warned of.

Dagster itself is the judge of what must keep working: it makes resources anew in each run.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from octogen_dagster import (
    AnalyticsHubResource,
    Facet,
    NamedCatalogs,
    OctogenControlPlaneResource,
    OctogenResource,
    ParquetSnapshotIOManager,
    ProductSearch,
)

KEY = "octo_live_0123456789abcdef0123456789abcdef_c2VjcmV0LW9mLXRoZS1rZXk"
PRINCIPAL = "serviceAccount:reader@my-project.iam.gserviceaccount.com"


@pytest.mark.parametrize(
    ("kind", "settings", "name", "meant"),
    [
        (OctogenResource, {}, "budget", "budget_usd"),
        (OctogenResource, {"catalogs": NamedCatalogs(["acme"])}, "baseurl", "base_url"),
        (ParquetSnapshotIOManager, {"base_dir": "x"}, "resume_within", "resume_within_hours"),
        (AnalyticsHubResource, {"project": "p"}, "credentials", "gcp_credentials"),
        (OctogenControlPlaneResource, {"principal": PRINCIPAL}, "mcp_url", "url"),
        (ProductSearch, {}, "catalog", "catalogs"),
        (Facet, {"name": "gender", "values": ["male"]}, "value", "values"),
    ],
)
def test_a_mistyped_setting_is_an_error_that_says_what_is_meant(
    kind: Any, settings: dict[str, Any], name: str, meant: str
) -> None:
    kind(**settings)
    text = rf"{kind.__name__} has no setting '{name}'\. Did you mean '{meant}'\?"
    with pytest.raises(ValueError, match=text):
        kind(**settings, **{name: 5})


@pytest.mark.parametrize(
    ("kind", "settings", "name"),
    [
        (OctogenResource, {}, "host"),
        (OctogenResource, {}, "base_url"),
        (OctogenControlPlaneResource, {"principal": PRINCIPAL}, "host"),
    ],
)
def test_a_setting_that_is_no_text_is_an_error_that_names_it(
    kind: Any, settings: dict[str, Any], name: str
) -> None:
    with pytest.raises(ValueError, match=rf"{name}\n  Input should be a valid string"):
        kind(**settings, **{name: 5})


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (OctogenResource, {}),
        (ParquetSnapshotIOManager, {"base_dir": "x"}),
        (AnalyticsHubResource, {"project": "p"}),
        (OctogenControlPlaneResource, {"principal": PRINCIPAL}),
    ],
)
def test_its_value_is_not_shown(kind: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="has no setting 'apikey'") as caught:
        kind(**settings, apikey=KEY)
    assert KEY not in str(caught.value)


WARNINGS = """
import os
import sys
import warnings

import dagster as dg

from octogen_dagster import OctogenResource
from octogen_dagster.sandbox.server import Sandbox

key = sys.argv[1]
os.environ["MY_KEY"] = key


@dg.asset
def reads(octogen: OctogenResource) -> None:
    assert octogen.api_key == key


def told() -> int:
    return sum("written out in code" in str(each.message) for each in caught)


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    dg.materialize([reads], resources={"octogen": OctogenResource(api_key=dg.EnvVar("MY_KEY"))})
    OctogenResource(api_key=Sandbox(generation="seed").api_key)
    print(told())
    del os.environ["MY_KEY"]
    OctogenResource(api_key=key)
    OctogenResource(api_key=key, concurrency=2)
    print(told())
    assert not any(key in str(each.message) for each in caught)
"""


@pytest.mark.slow
def test_a_key_that_is_written_out_is_warned_of_once() -> None:
    command = [sys.executable, "-c", WARNINGS, KEY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["0", "1"]
