"""The decisions of the catalog sensor's tick, without Dagster."""

from collections.abc import Collection
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octogen_dagster.api.catalog_states import CatalogList, CatalogState
from octogen_dagster.errors import OctogenError
from octogen_dagster.run_ledger import RunAttempt
from octogen_dagster.snapshots.catalog_tick import CatalogCursor, CatalogTick, TickInputs, plan_tick

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
HOUR = 3600
GOLDEN = Path(__file__).parents[1] / "golden" / "catalog_cursor.json"


class Materializations:
    """The storage ids of the latest materializations; remembers what was looked up."""

    def __init__(self, **latest: int) -> None:
        self.latest = latest
        self.lookups: list[set[str]] = []

    def __call__(self, partitions: Collection[str]) -> dict[str, int | None]:
        self.lookups.append(set(partitions))
        return {key: self.latest[key] for key in partitions if key in self.latest}


def inputs(
    known: Collection[str] = (),
    now: int = 0,
    latest: Materializations | None = None,
    unfinished: Collection[str] = (),
    day: str = "",
) -> TickInputs:
    return TickInputs(
        known=lambda: known,
        latest_materializations=latest or Materializations(),
        unfinished=lambda: unfinished,
        partition_of=lambda key: f"{key}{day}",
        now=now,
    )


def index_run(key: str, day: int) -> CatalogState:
    """A catalog that was indexed on a day, or never if the day is 0."""
    return CatalogState(key, last_indexed_at=START + timedelta(days=day) if day else None)


def plan(
    cursor: CatalogCursor,
    catalogs: list[CatalogState],
    given: TickInputs,
    *,
    failure: OctogenError | None = None,
) -> CatalogTick:
    return plan_tick(cursor, CatalogList(catalogs, failure=failure), given)


def requested(cursor: CatalogCursor, catalogs: list[CatalogState], given: TickInputs) -> list[str]:
    return [partition for partition, _ in plan(cursor, catalogs, given).runs]


@pytest.mark.slow
def test_ten_thousand_catalogs_are_requested_fifty_a_tick_each_once() -> None:
    catalogs = [index_run(f"shop-{number}", 1) for number in range(10_000)]
    cursor, known, partitions = CatalogCursor(), set[str](), list[str]()
    for _ in range(200):
        tick = plan(cursor, catalogs, inputs(known))
        assert len(tick.runs) == 50
        assert len(tick.new) <= 1_000
        known |= set(tick.new)
        partitions += [partition for partition, _ in tick.runs]
        cursor, _ = CatalogCursor.load(tick.cursor.dump())
    assert len(set(partitions)) == len(partitions) == 10_000
    assert plan(cursor, catalogs, inputs(known)).runs == []


@settings(deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 3), max_size=8), max_size=12
    )
)
def test_every_move_is_requested_once_and_nothing_else(history: list[dict[str, int]]) -> None:
    cursor, known = CatalogCursor(), set[str]()
    last: dict[str, int] = {}
    for granted in history:
        tick = plan(cursor, [index_run(key, day) for key, day in granted.items()], inputs(known))
        moved = {
            key for key, day in granted.items() if key not in last or day not in (0, last[key])
        }
        assert {partition for partition, _ in tick.runs} == moved
        known |= set(tick.new)
        last |= {key: day or last.get(key, 0) for key, day in granted.items()}
        cursor, unreadable = CatalogCursor.load(tick.cursor.dump())
        assert not unreadable


def test_the_cursor_of_the_last_tick_is_not_changed() -> None:
    cursor = plan(CatalogCursor(), [index_run("shop", 2)], inputs()).cursor
    text = cursor.dump()
    tick = plan(cursor, [index_run("shop", 1)], inputs({"shop"}))
    assert tick.cursor.stamp_regressions == {"shop": 1}
    plan(cursor, [], inputs({"shop"}))
    assert cursor.dump() == text


def test_a_catalog_that_changes_all_the_time_starves_no_other() -> None:
    busy = [f"busy-{number:03}" for number in range(60)]
    cursor, known = CatalogCursor(), set[str]()
    seen: set[str] = set()
    for day in range(1, 5):
        catalogs = [index_run(key, day) for key in busy] + [index_run("quiet", 1)]
        tick = plan(cursor, catalogs, inputs(known))
        known |= set(tick.new)
        seen |= {partition for partition, _ in tick.runs}
        cursor = tick.cursor
    assert seen == {*busy, "quiet"}


def test_nothing_is_looked_up_when_no_snapshot_is_due() -> None:
    def fail() -> set[str]:
        raise AssertionError("nothing is due")

    catalogs = [index_run("quiet", 1), index_run("never", 0)]
    cursor = plan(CatalogCursor(), catalogs, inputs()).cursor
    given = TickInputs(fail, lambda _: dict.fromkeys(fail()), fail, str, now=0)
    assert requested(cursor, catalogs, given) == []


def test_the_newest_of_those_never_requested_come_first() -> None:
    catalogs = [index_run(f"shop-{day:03}", day) for day in range(1, 100)]
    tick = plan(CatalogCursor(), catalogs, inputs())
    assert [key for key, _ in tick.runs] == [f"shop-{day:03}" for day in range(99, 49, -1)]
    assert tick.waiting == 49


def test_of_those_requested_before_the_longest_unchanged_comes_first() -> None:
    catalogs = [index_run(key, 1) for key in ("a", "b", "c")]
    cursor = plan(CatalogCursor(), catalogs, inputs()).cursor
    moved = [index_run("a", 4), index_run("b", 3), index_run("c", 2), index_run("new", 1)]
    assert requested(cursor, moved, inputs({"a", "b", "c"})) == ["new", "c", "b", "a"]


def test_a_catalog_that_was_indexed_at_an_earlier_time_again_gets_new_run_keys() -> None:
    cursor, run_keys = CatalogCursor(), list[str]()
    for day in (1, 2, 1, 2, 1, 2):
        tick = plan(cursor, [index_run("shop", day)], inputs({"shop"}))
        run_keys += [run_key for _, run_key in tick.runs]
        cursor = tick.cursor
    assert len(set(run_keys)) == len(run_keys) == 6
    assert run_keys[0] == "shop@2026-01-02T00:00:00+00:00"
    assert run_keys[2] == "shop@2026-01-02T00:00:00+00:00~1"


def test_many_that_vanish_at_once_are_reported_a_hundred_a_tick_each_once() -> None:
    catalogs = [index_run(f"shop-{number}", 1) for number in range(250)]
    cursor, known = CatalogCursor(), {entry.catalog for entry in catalogs}
    for _ in range(5):
        cursor = plan(cursor, catalogs, inputs(known)).cursor
    reported: list[str] = []
    for expected in (100, 100, 50, 0):
        tick = plan(cursor, [], inputs(known))
        assert len(tick.gone) == expected
        reported += tick.gone
        cursor = tick.cursor
    assert len(set(reported)) == 250


def test_a_tick_looks_up_at_most_four_hundred_unconfirmed_snapshots() -> None:
    catalogs = [index_run(f"shop-{number:04}", 1) for number in range(1_000)]
    cursor = CatalogCursor(
        requested={entry.catalog: entry.last_indexed_at for entry in catalogs},
        unconfirmed={entry.catalog: RunAttempt(1, 0) for entry in catalogs},
    )
    latest = Materializations()
    runs = requested(cursor, catalogs, inputs(cursor.requested, now=1, latest=latest))
    assert len(runs) == 50
    assert [len(partitions) for partitions in latest.lookups] == [400, 50]


def test_only_overdue_catalogs_that_are_granted_are_looked_up() -> None:
    catalogs = [index_run("granted", 1), index_run("revoked", 1)]
    cursor = plan(CatalogCursor(), catalogs, inputs()).cursor
    latest = Materializations(granted=1)
    given = inputs({"granted", "revoked"}, HOUR, latest)
    assert requested(cursor, catalogs[:1], given) == []
    assert latest.lookups == [{"granted"}]
    latest.lookups.clear()
    assert requested(cursor, catalogs, inputs({"granted"}, 1, latest)) == []
    assert latest.lookups == []


@pytest.mark.parametrize(("latest", "confirmed"), [(7, False), (8, True)])
def test_only_a_later_materialization_confirms_a_catalog_that_was_indexed_again(
    latest: int, confirmed: bool
) -> None:
    first = plan(CatalogCursor(), [index_run("shop", 1)], inputs()).cursor
    again = [index_run("shop", 2)]
    cursor = plan(first, again, inputs({"shop"}, latest=Materializations(shop=7))).cursor
    assert cursor.unconfirmed["shop"].after == 7
    tick = plan(cursor, again, inputs({"shop"}, HOUR, Materializations(shop=latest)))
    assert tick.cursor.unconfirmed.keys() == (set() if confirmed else {"shop"})
    assert [run_key.partition("#")[2] for _, run_key in tick.runs] == ([] if confirmed else ["2"])


def test_after_a_reset_any_materialization_confirms() -> None:
    catalogs, latest = [index_run("shop", 1)], Materializations(shop=7)
    cursor = plan(CatalogCursor(), catalogs, inputs({"shop"}, latest=latest)).cursor
    assert requested(cursor, catalogs, inputs({"shop"}, HOUR, latest)) == []


@pytest.mark.parametrize("partition", ["shop|1", "shop|2"])
def test_a_snapshot_of_the_requested_or_of_the_present_day_confirms(partition: str) -> None:
    catalogs = [index_run("shop", 1)]
    cursor = plan(CatalogCursor(), catalogs, inputs(day="|1")).cursor
    there = Materializations(**{partition: 1})
    assert requested(cursor, catalogs, inputs({"shop"}, HOUR, there, day="|2")) == []
    assert requested(cursor, catalogs, inputs({"shop"}, HOUR, day="|2")) == ["shop|2"]


def test_a_catalog_whose_run_is_not_finished_is_not_requested_again() -> None:
    catalogs = [index_run("shop", 1)]
    cursor = plan(CatalogCursor(), catalogs, inputs()).cursor
    busy = plan(cursor, catalogs, inputs({"shop"}, HOUR, unfinished={"shop"}))
    assert busy.runs == []
    assert requested(busy.cursor, catalogs, inputs({"shop"}, HOUR)) == ["shop"]


def test_a_catalog_that_cannot_be_a_partition_is_skipped_and_the_others_are_not() -> None:
    odd = [CatalogState(" "), CatalogState("x" * 300), index_run("northpeak", 1)]
    tick = plan(CatalogCursor(), odd, inputs())
    assert [partition for partition, _ in tick.runs] == ["northpeak"]
    assert tick.skipped == [
        "Skipped catalog ' '. A catalog key must not be empty.",
        f"Skipped catalog {'x' * 60!r}. Key {'x' * 60!r} cannot name a file: the name must have 1 "
        "to 200 characters, and has 300. Use a shorter key.",
    ]


def test_a_cursor_that_was_stored_by_an_earlier_version_is_read_and_written_alike() -> None:
    text = GOLDEN.read_text().strip()
    cursor, unreadable = CatalogCursor.load(text)
    assert not unreadable
    assert cursor == CatalogCursor(
        requested={
            "kiosk": None,
            "northpeak": datetime(2026, 11, 25, 6, 30, 0, 250_000, tzinfo=timezone.utc),
            "strada": datetime(2026, 11, 24, 5, tzinfo=timezone.utc),
        },
        unconfirmed={
            "northpeak": RunAttempt(1, 1_795_588_800),
            "strada": RunAttempt(3, 1_795_590_000, after=812, partition="strada|2026-11-25"),
        },
        gone={"kiosk"},
        stamp_regressions={"strada": 2},
        version=1,
    )
    assert cursor.dump() == text


def test_no_catalog_is_gone_while_the_list_is_incomplete() -> None:
    both = [index_run("shop", 1), index_run("other", 1)]
    cursor = plan(CatalogCursor(), both, inputs()).cursor
    tick = plan(cursor, both[:1], inputs(), failure=OctogenError("a shop failed"))
    assert tick.gone == []
    assert plan(tick.cursor, both[:1], inputs()).gone == ["other"]


def test_the_time_of_a_count_stands_in_for_that_of_an_index_run() -> None:
    def shop(day: int) -> list[CatalogState]:
        return [CatalogState("shop", computed_at=START + timedelta(days=day))]

    cursor = plan(CatalogCursor(), shop(1), inputs({"shop"})).cursor
    assert requested(cursor, shop(1), inputs({"shop"})) == []
    assert requested(cursor, shop(2), inputs({"shop"})) == ["shop"]


def test_a_time_that_is_not_known_for_a_tick_requests_nothing() -> None:
    cursor = plan(CatalogCursor(), [index_run("shop", 1)], inputs({"shop"})).cursor
    unknown = plan(cursor, [CatalogState("shop")], inputs({"shop"}))
    assert unknown.runs == []
    assert requested(unknown.cursor, [index_run("shop", 1)], inputs({"shop"})) == []
    assert requested(unknown.cursor, [index_run("shop", 2)], inputs({"shop"})) == ["shop"]


def test_a_new_catalog_is_requested_once_it_has_products() -> None:
    def shop(products: int) -> list[CatalogState]:
        return [CatalogState("shop", product_count=products, last_indexed_at=START)]

    tick = plan(CatalogCursor(), shop(0), inputs())
    assert (tick.runs, tick.new) == ([], [])
    tick = plan(tick.cursor, shop(1), inputs())
    assert [partition for partition, _ in tick.runs] == tick.new == ["shop"]
    later = [CatalogState("shop", product_count=0, last_indexed_at=START + timedelta(days=1))]
    assert requested(tick.cursor, later, inputs({"shop"})) == ["shop"]  # it lost all of them
