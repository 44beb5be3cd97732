"""An asset of a URL list keeps it equal to a table, and refuses what looks wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import OctogenResource, build_url_list_asset, build_url_list_checks
from octogen_dagster.sandbox import url_lists
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.url_lists import sync
from tests.promises.lists.url_list_runs import articles_of, materialize_list
from tests.results import failure, is_retried, metadata, octogen_at, stored, warnings

NAME = "competitors"
RETRIED = dg.RetryPolicy(max_retries=1)
SHOP = "https://shop.example"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(catalogs={"northpeak": 5}, url_list_seconds=0) as running:
        yield running


@pytest.fixture
def octogen(sandbox: Sandbox) -> OctogenResource:
    return octogen_at(sandbox)


def pages(*numbers: int) -> list[str]:
    return [f"{SHOP}/p{number}" for number in numbers]


def members(octogen: OctogenResource, name: str = NAME) -> set[str]:
    """The normalized addresses of a list that others made."""
    (found,) = [each for each in octogen.list_coverage_url_lists().items if each.name == name]
    urls, cursor = set[str](), None
    while True:
        page = octogen.list_coverage_url_list_urls(found.url_list_id, cursor=cursor)
        urls |= {each.normalized_url for each in page.items}
        cursor = page.next_cursor
        if not cursor:
            return urls


def run(
    table: pl.DataFrame | Sequence[str | None],
    octogen: OctogenResource,
    folder: Path,
    instance: dg.DagsterInstance | None = None,
    config: dict[str, Any] | None = None,
    **arguments: Any,
) -> dg.ExecuteInProcessResult:
    """Bring the list to a table, or to one of these addresses."""
    resources = stored(folder, octogen)
    arguments = {"retry_policy": None} | arguments
    return materialize_list(table, resources, instance, config, **arguments)


def requests(sandbox: Sandbox) -> list[str]:
    """The requests about URL lists so far, as their method and the end of their path."""
    return [f"{each.method} {each.path.rpartition('/')[2]}" for each in sandbox.requests]


@pytest.mark.slow
def test_a_run_makes_the_list_and_the_next_ones_send_what_differs(
    sandbox: Sandbox, octogen: OctogenResource, tmp_path: Path
) -> None:
    table = pl.DataFrame(
        {
            "sku": ["a", "a", "b", "c", "d", "e"],
            "url": [
                *("HTTP://Shop.Example/p1/?utm_source=mail", f"{SHOP}/p1", f"{SHOP}/p2"),
                *("nothing", None, f"{SHOP}/{'x' * 2048}"),
            ],
            "price": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        }
    )
    first = run(table, octogen, tmp_path)
    stored_table = pl.read_parquet(tmp_path / f"{NAME}.parquet")
    assert stored_table.select(table.columns).equals(table)
    assert stored_table.select("normalized_url", "rejected_code").rows() == [
        *((f"{SHOP}/p1", None), (f"{SHOP}/p1", None), (f"{SHOP}/p2", None)),
        *((None, "invalid_url"), (None, "missing_url"), (None, "too_long")),
    ]
    messages = stored_table["rejected_message"].to_list()
    assert messages[:3] == [None] * 3
    assert "2,048" in messages[5]
    shown = metadata(first, NAME)
    (made,) = octogen.list_coverage_url_lists().items
    assert {name: shown[f"octogen/{name}"] for name in (*COUNTS, "url_list_id", "status")} == {
        **dict(zip(COUNTS, (2, 2, 0, 3), strict=True)),
        "url_list_id": made.url_list_id,
        "status": "active",
    }
    assert shown["octogen/url_list_name"] == NAME
    assert shown["octogen/summary"] == "**2 URLs** in competitors, 2 added, 3 rejected"
    assert "nothing" in shown["octogen/rejected_urls"]
    columns = {each.name: each.description for each in shown["dagster/column_schema"].columns}
    assert columns["price"] is None
    assert "normalized by Octogen" in str(columns["normalized_url"])
    assert members(octogen) == {*pages(1, 2)}

    more = pages(1, 2, 3, 4, 5, 6)
    assert counts(run(more, octogen, tmp_path)) == (6, 4, 0, 0)
    changed = run([f"{each}#top" for each in pages(1, 2, 3, 4, 5, 7)], octogen, tmp_path)
    assert counts(changed) == (6, 1, 1, 0)
    assert pages(6)[0] in metadata(changed, NAME)["octogen/removed_urls"]
    assert members(octogen) == {*pages(1, 2, 3, 4, 5, 7)}
    before = len(sandbox.requests)
    assert counts(run(pages(1, 2, 3, 4, 5, 7), octogen, tmp_path)) == (6, 0, 0, 0)
    assert requests(sandbox)[before:] == ["GET url-lists", "POST contains"]


COUNTS = ("urls", "added", "removed", "rejected")


def counts(result: dg.ExecuteInProcessResult) -> tuple[int, ...]:
    shown = metadata(result, NAME)
    return tuple(shown[f"octogen/{name}"] for name in COUNTS)


@pytest.mark.long
def test_a_hundred_thousand_addresses_are_a_hundred_requests(
    sandbox: Sandbox, octogen: OctogenResource, tmp_path: Path
) -> None:
    result = run(pages(*range(100_000)), octogen, tmp_path)
    assert counts(result) == (100_000, 100_000, 0, 0)
    sent = requests(sandbox)
    assert sent[:-1] == ["GET url-lists", "POST url-lists", *["POST urls"] * 100]
    assert sent[-1].startswith("GET cul_")  # its status


def test_only_octogen_says_which_addresses_are_the_same(
    sandbox: Sandbox, octogen: OctogenResource, tmp_path: Path
) -> None:
    """60,000 pages that are written twice are not more than a list has."""
    written = [f"{each}{end}" for each in pages(*range(60_000)) for end in ("", "#top")]
    result = run(written, octogen, tmp_path)
    assert counts(result)[0] == 60_000


@pytest.mark.slow
def test_more_addresses_than_a_list_has_are_refused_before_anything_is_sent(
    octogen: OctogenResource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "MAX_LIST_URLS", 4)
    too_many = pages(2, 3, 4, 5, 6)
    new = run(too_many, octogen, tmp_path, retry_policy=RETRIED)
    assert members(octogen) == set()
    run(pages(1, 2, 3), octogen, tmp_path)
    full = run(too_many, octogen, tmp_path, retry_policy=RETRIED, max_removed_percent=100)
    for each in (new, full):
        assert "was not changed, because its table has 5 distinct URLs" in failure(each)
        assert not is_retried(each)
    assert members(octogen) == {*pages(1, 2, 3)}
    # Octogen says what is the same, and names what is no address too.
    written = [*pages(1, 2, 3, 4), f"{pages(4)[0]}#top", "nothing"]
    assert counts(run(written, octogen, tmp_path)) == (4, 1, 0, 1)


def test_a_list_that_is_full_all_the_same_says_what_was_changed(
    octogen: OctogenResource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(pages(1, 2), octogen, tmp_path)
    monkeypatch.setattr(url_lists, "_MAX_URLS", 3)  # as if others had filled the rest
    monkeypatch.setattr(sync, "MAX_URLS_PER_REQUEST", 2)
    table = pages(1, 3, 4, 5, 6)
    result = run(table, octogen, tmp_path, retry_policy=RETRIED, max_removed_percent=100)
    assert "(1 URL removed, 2 URLs added)" in failure(result)
    assert not is_retried(result)
    assert members(octogen) == {*pages(1, 3, 4)}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pl.DataFrame({"sku": ["a"]}), "does not have the column 'url'"),
        (pl.DataFrame({"url": ["a"]}), "does not have the column 'sku'"),
        (pl.DataFrame({"url": [1], "sku": ["a"]}), "column 'url' has the type int64"),
        (
            pl.DataFrame({"url": ["a"], "sku": ["a"], "rejected_code": ["x"]}),
            "has a column 'rejected_code'",
        ),
    ],
)
def test_a_table_that_is_none_is_refused_before_a_request_and_not_retried(
    sandbox: Sandbox, octogen: OctogenResource, tmp_path: Path, table: pl.DataFrame, message: str
) -> None:
    result = run(table, octogen, tmp_path, retry_policy=RETRIED)
    assert "The table articles" in failure(result)
    assert message in failure(result)
    assert not is_retried(result)
    assert sandbox.requests == []


@pytest.mark.slow
def test_a_run_that_would_remove_more_than_a_fifth_is_refused_and_changes_nothing(
    sandbox: Sandbox, octogen: OctogenResource, tmp_path: Path
) -> None:
    run(pages(*range(10)), octogen, tmp_path)
    before = (tmp_path / f"{NAME}.parquet").read_bytes()
    result = run(pages(*range(7), 20, 21, 22), octogen, tmp_path, retry_policy=RETRIED)
    assert "3 of its 10 URLs are not in the table" in failure(result)
    assert "`max_removed_percent: 100` in the launchpad" in failure(result)
    assert not is_retried(result)
    assert members(octogen) == {*pages(*range(10))}
    assert not {"POST remove", "GET urls"} & {*requests(sandbox)[:-2]}
    assert (tmp_path / f"{NAME}.parquet").read_bytes() == before
    assert run(pages(*range(8)), octogen, tmp_path).success
    accepted = run(pages(1), octogen, tmp_path, config={"max_removed_percent": 100})
    assert counts(accepted) == (1, 0, 7, 0)
    assert members(octogen) == {*pages(1)}


def test_no_more_than_all_is_removed_in_the_launchpad(
    sandbox: Sandbox, octogen: OctogenResource, tmp_path: Path
) -> None:
    result = run(pages(1), octogen, tmp_path, config={"max_removed_percent": 101})
    assert "max_removed_percent must be a percentage between 0 and 100" in failure(result)
    assert sandbox.requests == []


@pytest.mark.parametrize("addresses", [[], [None, " "]])
def test_a_table_without_an_address_removes_nothing_and_says_so(
    octogen: OctogenResource,
    tmp_path: Path,
    instance: dg.DagsterInstance,
    addresses: Sequence[str | None],
) -> None:
    run(pages(1, 2), octogen, tmp_path)
    result = run(addresses, octogen, tmp_path, instance, {"max_removed_percent": 100})
    assert counts(result) == (0, 0, 0, len(addresses))
    assert members(octogen) == {*pages(1, 2)}
    (line, *_) = warnings(instance, result)
    assert line.startswith("The table has no URLs, so no URLs are removed from URL list 'competit")
    shown = metadata(result, NAME)["octogen/summary"]
    assert shown.startswith("**No URLs** in the table; 2 kept in competitors")


def test_a_list_whose_answer_was_lost_is_found_by_its_name(
    sandbox: Sandbox, octogen: OctogenResource, tmp_path: Path
) -> None:
    """The service made the list; the client asks again, and the name is taken."""
    lists = "/coverage/url-lists"
    sandbox.inject(Fault("unknown_fields", times=1, path=lists))  # passes the look for the list
    sandbox.inject(Fault("cut", times=1, path=lists))
    assert counts(run(pages(1, 2), octogen, tmp_path)) == (2, 2, 0, 0)
    assert [(each.method, each.status) for each in sandbox.requests if each.path == lists] == [
        *(("GET", 200), ("POST", 201), ("POST", 409), ("GET", 200))
    ]
    assert members(octogen) == {*pages(1, 2)}


def test_a_list_that_is_being_deleted_is_made_anew(tmp_path: Path) -> None:
    with Sandbox(catalogs={"northpeak": 5}, url_list_seconds=math.inf) as slow:
        octogen = octogen_at(slow)
        first = metadata(run(pages(1), octogen, tmp_path, provisioning_timeout=0.0), NAME)
        octogen.delete_coverage_url_list(first["octogen/url_list_id"])
        second = metadata(run(pages(1), octogen, tmp_path, provisioning_timeout=0.0), NAME)
        assert second["octogen/url_list_id"] != first["octogen/url_list_id"]
        assert second["octogen/added"] == 1


def test_a_list_that_stays_provisioning_has_its_addresses_and_the_run_says_so(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    with Sandbox(catalogs={"northpeak": 5}, url_list_seconds=math.inf) as slow:
        octogen = octogen_at(slow)
        result = run(pages(1), octogen, tmp_path, instance, provisioning_timeout=0.0)
        assert members(octogen) == {*pages(1)}
    assert metadata(result, NAME)["octogen/status"] == "provisioning"
    (line,) = warnings(instance, result)
    assert "still has the status provisioning after 0 seconds" in line


def test_a_run_waits_until_a_new_list_is_active(tmp_path: Path) -> None:
    with Sandbox(catalogs={"northpeak": 5}, url_list_seconds=0.5) as slow:
        result = run(pages(1), octogen_at(slow), tmp_path)
    assert metadata(result, NAME)["octogen/status"] == "active"


@pytest.mark.parametrize(
    ("status", "code"), [(404, "url_list_not_found"), (409, "url_list_deleting")]
)
def test_a_list_that_is_deleted_meanwhile_is_an_error_and_no_retry(
    sandbox: Sandbox, octogen: OctogenResource, tmp_path: Path, status: int, code: str
) -> None:
    run(pages(1), octogen, tmp_path)
    (made,) = octogen.list_coverage_url_lists().items
    path = f"/coverage/url-lists/{made.url_list_id}/urls"
    sandbox.inject(Fault("status", status, path=path, detail=code))
    result = run(pages(1, 2), octogen, tmp_path, retry_policy=RETRIED)
    assert f"({made.url_list_id}) was deleted during this run" in failure(result)
    assert not is_retried(result)


def test_rejected_addresses_are_a_check(
    octogen: OctogenResource, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    severity = dg.AssetCheckSeverity.ERROR
    result = run([*pages(1), "nothing"], octogen, tmp_path, instance, severity=severity)
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed, check.severity) == ("accepted", False, severity)
    assert "1 row in the table was rejected" in str(check.description)
    assert "nothing" in str(check.metadata["octogen/rejected_urls"].value)
    (line,) = warnings(instance, result)
    assert line.endswith(": invalid_url 1.")
    result = run(pages(1), octogen, tmp_path, instance)
    (check,) = result.get_asset_check_evaluations()
    assert check.passed


def test_a_materialization_that_a_person_reports_says_nothing_of_rejected_rows(
    instance: dg.DagsterInstance,
) -> None:
    url_list = build_url_list_asset("a", articles_of([]))
    instance.report_runless_asset_event(dg.AssetMaterialization(url_list.key))
    (accepted,) = build_url_list_checks(url_list)
    key = dg.AssetCheckKey(url_list.key, "accepted")
    job = dg.define_asset_job("check", dg.AssetSelection.checks(key))
    defs = dg.Definitions(asset_checks=[accepted], jobs=[job])
    result = defs.resolve_job_def("check").execute_in_process(instance=instance)
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    assert check.description == "No run has synchronized the list yet."


def test_any_io_manager_keeps_it(octogen: OctogenResource) -> None:
    resources = {"io_manager": dg.mem_io_manager, "octogen": octogen}
    result = materialize_list(pages(1, 2), resources)
    kept = result.output_for_node(NAME)
    assert kept["normalized_url"].to_list() == pages(1, 2)
    assert counts(result) == (2, 2, 0, 0)
    assert metadata(result, NAME)["octogen/summary"] == "**2 URLs** in competitors, 2 added"


def test_a_list_name_has_no_blanks_around_it() -> None:
    url_list = build_url_list_asset("a", articles_of([]), list_name=" q3 ")
    assert url_list.metadata_by_key[url_list.key]["octogen/url_list"] == "q3"
