"""What a tick of the listing sensor does, without Dagster."""

from dataclasses import replace

from octogen_dagster.bigquery.listing_tick import ListingCursor, RunAttempt, TickInputs, plan_tick

MINUTE = 60


def test_what_was_just_granted_is_asked_for_before_all_others() -> None:
    statuses = {f"p:us:e:{number:03}": "pending" for number in range(500)}
    cursor = ListingCursor()
    for tick in range(10):
        result = plan_tick(cursor, TickInputs(statuses, statuses, (), (), {}, tick))
        cursor = result.cursor
    assert len(result.due) == 50
    statuses["p:us:e:123"] = "awaiting_subscription"
    statuses |= {f"p:us:e:new-{number}": "" for number in range(60)}
    result = plan_tick(cursor, TickInputs(statuses, statuses, (), (), {}, 11))
    assert result.due[0][0] == "p:us:e:123"


def test_a_grant_that_is_seen_while_a_run_is_unfinished_is_not_forgotten() -> None:
    key = "p:us:e:l"
    cursor = plan_tick(ListingCursor(), TickInputs({key: "pending"}, [key], (), (), {}, 0)).cursor
    busy = plan_tick(cursor, TickInputs({key: "awaiting_subscription"}, [key], (), [key], {}, 1))
    assert busy.due == []
    after = plan_tick(busy.cursor, TickInputs({key: "awaiting_subscription"}, [key], (), (), {}, 2))
    assert [due for due, _ in after.due] == [key]


def test_reports_of_a_tick_are_bounded_and_none_is_lost() -> None:
    keys = [f"p:us:e:{number:03}" for number in range(250)]
    cursor = ListingCursor()
    for tick in range(5):
        cursor = plan_tick(
            cursor, TickInputs(dict.fromkeys(keys, ""), keys, keys, (), {}, tick)
        ).cursor
    gone: list[str] = []
    for tick in range(4):
        result = plan_tick(cursor, TickInputs({}, keys, keys, (), {}, 10 + tick))
        assert len(result.gone) <= 100
        gone, cursor = gone + result.gone, result.cursor
    assert sorted(gone) == keys


def test_lapses_are_reported_once_on_as_many_ticks_as_it_takes() -> None:
    keys = [f"p:us:e:{number:03}" for number in range(250)]
    stale = TickInputs(dict.fromkeys(keys, ""), keys, keys, (), dict.fromkeys(keys, "stale"), 0)
    cursor = ListingCursor()
    told: list[list[str]] = []
    for _ in range(5):
        # Between two checks a tick knows only what the last one remembered.
        result = plan_tick(cursor, replace(stale, lapses=cursor.lapsed or stale.lapses))
        told.append(sorted(result.lapsed))
        cursor, lost = ListingCursor.load(result.cursor.dump(), 0)
        assert not lost
    assert told == [keys[:100], keys[100:200], keys[200:], [], []]
    worse = plan_tick(cursor, replace(stale, lapses={**cursor.lapsed, keys[7]: "revoked"}))
    assert worse.lapsed == {keys[7]: "revoked"}


def test_subscriptions_are_looked_at_again_once_a_lapsed_one_was_asked_for() -> None:
    key = "p:us:e:l"
    revoked = TickInputs({key: "awaiting_subscription"}, [key], [key], (), {key: "revoked"}, 1_000)
    asked = plan_tick(ListingCursor(checked_at=900), revoked)
    assert [due for due, _ in asked.due] == [key]
    assert asked.cursor.checked_at == 0
    running = plan_tick(
        replace_checked(asked.cursor, 1_060), replace(revoked, busy=[key], now=1_060)
    )
    assert running.cursor.checked_at == 0
    failed = plan_tick(replace_checked(running.cursor, 1_120), replace(revoked, now=1_120))
    assert failed.cursor.checked_at == 1_120


def replace_checked(cursor: ListingCursor, now: int) -> ListingCursor:
    cursor.checked_at = now
    return cursor


def test_of_those_asked_for_who_waits_longest_comes_first() -> None:
    keys = [f"p:us:e:{number:03}" for number in range(60)]
    asks = {key: RunAttempt("", 1, 1, 1_000 - number) for number, key in enumerate(keys)}
    result = plan_tick(
        ListingCursor(asks=asks), TickInputs(dict.fromkeys(keys, ""), keys, (), (), {}, 10_000)
    )
    assert [key for key, _ in result.due] == keys[:9:-1]
    assert result.waiting == 10


def test_ten_thousand_listings_take_two_hundred_ticks_and_no_more() -> None:
    statuses = {f"p:us:e:{number:05}": "" for number in range(10_000)}
    cursor, known, subscribed, ticks = ListingCursor(), set(), set(), 0
    requested: list[str] = []
    while True:
        tick = plan_tick(cursor, TickInputs(statuses, known, subscribed, (), {}, ticks * MINUTE))
        if not tick.due:
            break
        ticks += 1
        assert len(tick.due) <= 50
        assert len(tick.new) <= 1000
        known |= set(tick.new)
        subscribed |= {key for key, _ in tick.due}
        requested += [key for key, _ in tick.due]
        cursor, lost = ListingCursor.load(tick.cursor.dump(), 0)
        assert not lost
    assert ticks == 200
    assert sorted(requested) == sorted(statuses)


def test_what_its_owner_deleted_is_not_asked_for_when_octogen_notices() -> None:
    key, granted = "p:us:e:l", "awaiting_subscription"
    cursor = ListingCursor()
    for at, status in enumerate(("active", "active", granted, granted)):
        lapses = {key: "missing"} if status == granted else {}
        result = plan_tick(
            cursor, TickInputs({key: status}, [key], [key], (), lapses, at * 60 * MINUTE)
        )
        assert result.due == []
        cursor = result.cursor
    pending = plan_tick(cursor, TickInputs({key: "pending"}, [key], [key], (), {}, 0)).cursor
    assert plan_tick(pending, TickInputs({key: granted}, [key], [key], (), {}, 0)).due


def test_a_clock_that_jumped_and_went_back_delays_no_request() -> None:
    key = "p:us:e:l"
    ahead = TickInputs({key: ""}, [key], (), (), {}, 365 * 24 * 60 * MINUTE)
    cursor = plan_tick(ListingCursor(), ahead).cursor
    assert plan_tick(cursor, replace(ahead, now=ahead.now + MINUTE)).due == []
    assert plan_tick(cursor, replace(ahead, now=MINUTE)).due
