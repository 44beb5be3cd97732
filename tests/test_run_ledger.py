"""The ledger that both sensors keep of the runs they requested."""

import pytest

from octogen_dagster.run_ledger import CURSOR_VERSION, Ledger, RunAttempt, run_key

MINUTE = 60


class Cursor(Ledger[str], kw_only=True):
    """A ledger of letters, with a field of its own."""

    own: int = 0


def request(ledger: Cursor, now: int, *, new_round: bool = False) -> RunAttempt:
    return ledger.request("key", "a", now=now, new_round=new_round)


def test_attempts_are_counted_and_their_waits_grow() -> None:
    ledger = Cursor()
    attempts = [request(ledger, now=1_000) for _ in range(3)]
    assert [attempt.attempts for attempt in attempts] == [1, 2, 3]
    waits = [attempt.next_at - 1_000 for attempt in attempts]
    assert waits == [10 * MINUTE, 20 * MINUTE, 40 * MINUTE]
    assert ledger.unconfirmed == {"key": attempts[-1]}
    assert ledger.requested == {"key": "a"}


@pytest.mark.parametrize("confirm", [False, True])
def test_a_new_round_counts_from_one(confirm: bool) -> None:
    ledger = Cursor()
    request(ledger, now=0)
    request(ledger, now=0)
    if confirm:
        ledger.confirm("key")
        assert ledger.unconfirmed == {}
        assert ledger.requested == {"key": "a"}
    assert request(ledger, now=0, new_round=not confirm).attempts == 1


@pytest.mark.parametrize(("partition", "stored"), [("", ""), ("key", ""), ("key|1", "key|1")])
def test_an_attempt_names_its_partition_if_it_is_not_the_key(partition: str, stored: str) -> None:
    attempt = Cursor().request("key", "a", now=0, new_round=True, partition=partition)
    assert attempt.partition == stored


def test_confirming_a_key_without_a_request_changes_nothing() -> None:
    ledger = Cursor()
    ledger.confirm("key")
    assert ledger == Cursor()


@pytest.mark.parametrize(
    ("now", "overdue"), [(1_000, []), (1_599, []), (1_600, ["key"]), (-100_000, ["key"])]
)
def test_an_unconfirmed_run_is_overdue_after_its_wait_and_when_the_clock_jumps_back(
    now: int, overdue: list[str]
) -> None:
    ledger = Cursor()
    request(ledger, now=1_000)
    assert ledger.overdue(now) == overdue
    ledger.confirm("key")
    assert ledger.overdue(now) == []


def test_a_key_is_reported_as_gone_once_and_again_after_it_came_back() -> None:
    ledger = Cursor()
    request(ledger, now=0)
    there, nothing = {"key"}, set[str]()
    reports = [ledger.report_gone(keys) for keys in (there, nothing, nothing, there, nothing)]
    assert reports == [[], ["key"], [], [], ["key"]]


def test_at_most_a_hundred_keys_are_reported_in_a_tick_and_none_is_lost() -> None:
    keys = [f"{number:03}" for number in range(150)]
    ledger = Cursor(requested=dict.fromkeys(keys, ""))
    reports = [ledger.report_gone(set()) for _ in range(3)]
    assert reports == [keys[:100], keys[100:], []]


def test_a_ledger_is_stored_and_loaded() -> None:
    ledger = Cursor(own=3, gone={"b", "a"})
    request(ledger, now=0)
    assert Cursor.load(ledger.dump()) == (ledger, False)
    assert Cursor.load(None) == Cursor.load("") == (Cursor(), False)


def test_equal_ledgers_give_equal_texts() -> None:
    keys = [f"key-{number}" for number in range(50)]
    one = Cursor(requested=dict.fromkeys(keys, ""), gone=set(keys))
    other = Cursor(requested=dict.fromkeys(reversed(keys), ""), gone=set(keys))
    assert one.dump() == other.dump()


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[]",
        '{"requested": 3}',
        '{"unknown": {}}',
        '{"unconfirmed": {"key": ["1", 0]}}',
        f'{{"version": {CURSOR_VERSION + 1}}}',
    ],
)
def test_a_cursor_that_is_damaged_or_of_another_version_is_unreadable(text: str) -> None:
    assert Cursor.load(text) == (Cursor(), True)


def test_a_copy_is_independent() -> None:
    ledger = Cursor(own=3)
    copied = ledger.copy()
    assert copied == ledger
    request(copied, now=0)
    copied.report_gone(set())
    assert ledger == Cursor(own=3)


@pytest.mark.parametrize(
    ("round_number", "attempts", "expected"),
    [(0, 1, "key@7"), (0, 2, "key@7#2"), (3, 1, "key@7~3"), (3, 2, "key@7~3#2")],
)
def test_the_run_key_of_an_attempt(round_number: int, attempts: int, expected: str) -> None:
    assert run_key("key", 7, round_number=round_number, attempts=attempts) == expected
