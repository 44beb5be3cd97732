"""The decisions of the listing sensor's tick, without Dagster."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from octogen_dagster.bigquery.listing_tick import (
    ListingCursor,
    TickInputs,
    plan_tick,
    recorded_status,
)
from octogen_dagster.run_ledger import RunAttempt

MINUTE = 60
KEY = "p:us:e:l"
PENDING, GRANTED = "pending", "awaiting_subscription"
GOLDEN = Path(__file__).parents[1] / "golden" / "listing_cursor.json"


def inputs(statuses: dict[str, str] | str = "", now: int = 0) -> TickInputs:
    """Listings that have a partition each and no subscription; a status is that of KEY."""
    statuses = {KEY: statuses} if isinstance(statuses, str) else statuses
    return TickInputs(statuses, known=statuses, subscribed=(), unfinished=(), lapses={}, now=now)


def requested(cursor: ListingCursor, given: TickInputs) -> list[str]:
    return [key for key, _ in plan_tick(cursor, given).runs]


def test_a_new_grant_is_requested_before_all_others() -> None:
    statuses = {f"p:us:e:{number:03}": PENDING for number in range(500)}
    cursor = ListingCursor()
    for now in range(10):
        tick = plan_tick(cursor, inputs(statuses, now))
        assert len(tick.runs) == 50
        cursor = tick.cursor
    statuses["p:us:e:123"] = GRANTED
    statuses |= {f"p:us:e:new-{number}": "" for number in range(60)}
    assert requested(cursor, inputs(statuses, 11))[0] == "p:us:e:123"


def test_a_grant_that_arrives_while_a_run_is_unfinished_is_not_forgotten() -> None:
    cursor = plan_tick(ListingCursor(), inputs(PENDING)).cursor
    busy = plan_tick(cursor, replace(inputs(GRANTED, now=1), unfinished=[KEY]))
    assert busy.runs == []
    assert requested(busy.cursor, inputs(GRANTED, now=2)) == [KEY]


@pytest.mark.parametrize("before", [None, "", PENDING, GRANTED])
@pytest.mark.parametrize("status", ["", PENDING, GRANTED])
def test_a_crash_before_the_cursor_is_stored_repeats_the_run_key(
    before: str | None, status: str
) -> None:
    cursor = ListingCursor()
    if before is not None:
        cursor = plan_tick(cursor, inputs(before)).cursor
        cursor = plan_tick(cursor, replace(inputs(before), subscribed=[KEY])).cursor
    revoked = replace(inputs(status, now=1), subscribed=[KEY], lapses={KEY: "revoked"})
    crashed = plan_tick(cursor, revoked)
    assert len(crashed.runs) == 1
    running = plan_tick(cursor, replace(revoked, unfinished=[KEY], now=2))
    assert running.runs == []
    assert plan_tick(running.cursor, replace(revoked, now=3)).runs == crashed.runs


@pytest.mark.parametrize("status", ["preparing", "pending", "melted", ""])
def test_a_pending_grant_is_requested_once_and_again_when_it_is_granted(status: str) -> None:
    pending = recorded_status(status)
    cursor = plan_tick(ListingCursor(), inputs(pending)).cursor
    for hour in range(1, 100):
        word = recorded_status(status if hour % 2 else "a word of tomorrow")
        tick = plan_tick(cursor, inputs(word, now=hour * 60 * MINUTE))
        assert tick.runs == []
        cursor = tick.cursor
    granted = plan_tick(cursor, inputs(recorded_status(GRANTED), now=1))
    assert granted.runs == [(KEY, f"{KEY}@0~1")]
    assert requested(granted.cursor, inputs(GRANTED, now=9 * MINUTE)) == []
    assert requested(granted.cursor, inputs(GRANTED, now=11 * MINUTE)) == [KEY]


def test_only_a_status_that_is_not_granted_yet_is_recorded_as_pending() -> None:
    assert recorded_status(None) == ""
    for status in (GRANTED, "active", "source_stale", "refresh_failed", "removing"):
        assert recorded_status(status) == status


def test_a_listing_that_is_withdrawn_is_not_requested_until_it_is_granted_again() -> None:
    removing = plan_tick(ListingCursor(), inputs("removing"))
    assert (removing.new, removing.runs) == ([], [])
    assert requested(removing.cursor, inputs(GRANTED, now=1)) == [KEY]
    revoked = replace(inputs("removing"), subscribed=[KEY], lapses={KEY: "revoked"})
    assert requested(ListingCursor(), revoked) == []


def test_reports_of_a_tick_are_limited_and_none_is_lost() -> None:
    keys = [f"p:us:e:{number:03}" for number in range(250)]
    there = replace(inputs(dict.fromkeys(keys, "")), subscribed=keys)
    cursor = ListingCursor()
    for now in range(5):
        cursor = plan_tick(cursor, replace(there, now=now)).cursor
    gone: list[str] = []
    for now in range(4):
        tick = plan_tick(cursor, replace(there, statuses={}, now=10 + now))
        assert len(tick.gone) <= 100
        gone, cursor = gone + tick.gone, tick.cursor
    assert sorted(gone) == keys


def test_lapses_are_reported_once_on_as_many_ticks_as_it_takes() -> None:
    keys = [f"p:us:e:{number:03}" for number in range(250)]
    stale = replace(
        inputs(dict.fromkeys(keys, "")), subscribed=keys, lapses=dict.fromkeys(keys, "stale")
    )
    cursor = ListingCursor()
    reported: list[list[str]] = []
    for _ in range(5):
        # Between two checks a tick knows only what the last one remembered.
        tick = plan_tick(cursor, replace(stale, lapses=cursor.lapsed or stale.lapses))
        reported.append(sorted(tick.lapsed))
        cursor, unreadable = ListingCursor.load(tick.cursor.dump())
        assert not unreadable
    assert reported == [keys[:100], keys[100:200], keys[200:], [], []]
    worse = plan_tick(cursor, replace(stale, lapses={**cursor.lapsed, keys[7]: "revoked"}))
    assert worse.lapsed == {keys[7]: "revoked"}


def test_subscriptions_are_checked_again_once_a_lapsed_one_was_requested() -> None:
    revoked = replace(inputs(GRANTED, now=1_000), subscribed=[KEY], lapses={KEY: "revoked"})
    first = plan_tick(ListingCursor(checked_at=900), revoked)
    assert [key for key, _ in first.runs] == [KEY]
    assert first.cursor.checked_at == 0
    running = plan_tick(checked(first.cursor, 1_060), replace(revoked, unfinished=[KEY], now=1_060))
    assert running.cursor.checked_at == 0
    failed = plan_tick(checked(running.cursor, 1_120), replace(revoked, now=1_120))
    assert failed.cursor.checked_at == 1_120


def checked(cursor: ListingCursor, now: int) -> ListingCursor:
    cursor.checked_at = now
    return cursor


def test_those_never_requested_come_first_and_then_who_waits_longest() -> None:
    keys = [f"p:us:e:{number:03}" for number in range(60)]
    cursor = ListingCursor(
        requested=dict.fromkeys(keys, ""),
        unconfirmed={key: RunAttempt(1, 1_000 - n) for n, key in enumerate(keys)},
    )
    tick = plan_tick(cursor, inputs({**dict.fromkeys(keys, ""), "p:us:e:new": ""}, 10_000))
    assert [key for key, _ in tick.runs] == ["p:us:e:new", *keys[:10:-1]]
    assert tick.waiting == 11


@pytest.mark.slow
def test_ten_thousand_listings_take_two_hundred_ticks_and_no_more() -> None:
    statuses = {f"p:us:e:{number:05}": "" for number in range(10_000)}
    cursor, known, subscribed, ticks = ListingCursor(), set[str](), set[str](), 0
    keys: list[str] = []
    while True:
        given = TickInputs(statuses, known, subscribed, (), {}, ticks * MINUTE)
        tick = plan_tick(cursor, given)
        if not tick.runs:
            break
        ticks += 1
        assert len(tick.runs) <= 50
        assert len(tick.new) <= 1000
        known |= set(tick.new)
        subscribed |= {key for key, _ in tick.runs}
        keys += [key for key, _ in tick.runs]
        cursor, unreadable = ListingCursor.load(tick.cursor.dump())
        assert not unreadable
    assert ticks == 200
    assert sorted(keys) == sorted(statuses)


def test_a_subscription_that_its_owner_deleted_is_not_requested_when_octogen_notices() -> None:
    cursor = ListingCursor()
    for tick_number, status in enumerate(("active", "active", GRANTED, GRANTED)):
        lapses = {KEY: "missing"} if status == GRANTED else {}
        tick = plan_tick(
            cursor,
            replace(inputs(status, tick_number * 60 * MINUTE), subscribed=[KEY], lapses=lapses),
        )
        assert tick.runs == []
        cursor = tick.cursor
    pending = plan_tick(cursor, replace(inputs(PENDING), subscribed=[KEY])).cursor
    assert requested(pending, replace(inputs(GRANTED), subscribed=[KEY])) == [KEY]


def test_a_clock_that_jumped_and_went_back_delays_no_request() -> None:
    ahead = inputs(now=365 * 24 * 60 * MINUTE)
    cursor = plan_tick(ListingCursor(), ahead).cursor
    assert requested(cursor, replace(ahead, now=ahead.now + MINUTE)) == []
    assert requested(cursor, replace(ahead, now=MINUTE)) == [KEY]


def test_run_keys_never_repeat_however_often_a_subscription_is_revoked() -> None:
    given = inputs()
    cursor, run_keys = ListingCursor(epoch=7), list[str]()
    for day in range(3):
        for attempt in range(3):
            now = (day * 24 + attempt) * 60 * MINUTE
            revoked = replace(given, now=now, subscribed=[KEY], lapses={KEY: "revoked"})
            tick = plan_tick(cursor, revoked if day else replace(given, now=now))
            run_keys += [run_key for _, run_key in tick.runs]
            cursor = tick.cursor
        cursor = plan_tick(cursor, replace(given, subscribed=[KEY])).cursor
        assert cursor.unconfirmed == {}
    suffixes = ["", "#2", "#3", "~1", "~1#2", "~1#3", "~2", "~2#2", "~2#3"]
    assert run_keys == [f"{KEY}@7{suffix}" for suffix in suffixes]


def test_the_cursor_of_the_last_tick_is_not_changed() -> None:
    keys = [f"p:us:e:{number}" for number in range(3)]
    cursor = ListingCursor(
        requested=dict.fromkeys(keys, PENDING),
        unconfirmed={keys[0]: RunAttempt(2, 0)},
        gone={keys[0]},
        lapsed={keys[1]: "stale"},
        unreported={keys[1]},
    )
    text = cursor.dump()
    given = replace(
        inputs(dict.fromkeys(keys, GRANTED)), subscribed=[keys[1]], lapses={keys[1]: "revoked"}
    )
    assert len(requested(cursor, given)) == 3
    plan_tick(cursor, replace(given, statuses={keys[0]: ""}, subscribed=[keys[0]], lapses={}))
    assert cursor.copy().record_warnings(["A listing is a topic."])
    assert cursor.dump() == text


def test_a_warning_is_logged_once_while_it_holds_and_again_when_it_changes() -> None:
    cursor = ListingCursor()
    warnings = [f"Listing {number} is a topic." for number in range(12)]
    assert cursor.record_warnings(warnings) == warnings[:10]
    cursor, _ = ListingCursor.load(plan_tick(cursor, inputs()).cursor.dump())
    assert cursor.record_warnings(warnings) == warnings[10:]
    assert cursor.record_warnings(warnings) == []
    changed = ["Listing 0 is sold.", *warnings[1:11]]
    assert cursor.record_warnings(changed) == ["Listing 0 is sold."]
    assert cursor.record_warnings(warnings) == [warnings[0], warnings[11]]


def test_the_warnings_that_are_remembered_are_limited() -> None:
    cursor = ListingCursor()
    warnings = [f"Listing {number} is a topic." for number in range(2_000)]
    logged = [cursor.record_warnings(warnings) for _ in range(101)]
    assert [len(each) for each in logged] == [10] * 100 + [0]
    assert len(cursor.dump()) < 20_000


@pytest.mark.parametrize("lapse", ["stale", "missing", "refresh_failed"])
def test_only_a_revoked_subscription_is_requested_again(lapse: str) -> None:
    lapsed = replace(inputs(), subscribed=[KEY], lapses={KEY: lapse})
    assert requested(ListingCursor(), lapsed) == []
    assert requested(ListingCursor(), replace(lapsed, lapses={KEY: "revoked"})) == [KEY]


def test_a_cursor_that_was_stored_by_an_earlier_version_is_read() -> None:
    text = GOLDEN.read_text().strip()
    cursor, unreadable = ListingCursor.load(text)
    assert not unreadable
    northpeak, strada, kiosk = (
        f"octogen:us:catalogs:{name}" for name in ("northpeak", "strada", "kiosk")
    )
    assert cursor == ListingCursor(
        requested={kiosk: "", northpeak: "active", strada: PENDING},
        unconfirmed={strada: RunAttempt(2, 1_795_590_000)},
        gone={kiosk},
        rounds={strada: 1},
        lapsed={northpeak: "stale", strada: "revoked"},
        unreported={strada},
        checked_at=1_795_588_800,
        epoch=1_795_500_000,
        version=1,
    )
    assert json.loads(cursor.dump()) == {**json.loads(text), "warned": []}
