"""docs/troubleshooting.md has an entry for each message of the package, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.docs.messages import MIN_FIXED_LETTERS, Message, messages_of, package_messages

PAGE = Path(__file__).parents[2] / "docs/troubleshooting.md"
QUOTES = [
    line
    for block in re.findall(r"^```text\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]
HOW_TO_MEND = (
    "Quote the beginning of each message in a ```text block of docs/troubleshooting.md, with … for "
    "what is filled in, under the entry that explains it; write one if there is none:"
)


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    return package_messages()


def test_each_message_has_an_entry(messages: list[Message]) -> None:
    missing = [
        f"{each.place}: {each.text}"
        for each in messages
        if each.shown and not any(each.matches(quote) for quote in QUOTES)
    ]
    assert not missing, "\n".join([HOW_TO_MEND, *missing])


def test_each_entry_is_of_a_message(messages: list[Message]) -> None:
    stale = [quote for quote in QUOTES if not any(each.matches(quote) for each in messages)]
    assert not stale, "\n".join(
        ["No text of the package begins like this; remove or mend:", *stale]
    )


def test_a_quote_is_long_enough_to_be_found() -> None:
    short = [quote for quote in QUOTES if len(re.findall(r"\w", quote)) < MIN_FIXED_LETTERS]
    assert not short
    assert len(QUOTES) == len(set(QUOTES))


SOURCE = '''
"""A docstring with many letters in it."""
import dagster as dg
from octogen_dagster.errors import OctogenError

ADVICE = "Run it again, when the service is back."

class OwnError(OctogenError):
    def __init__(self, name):
        super().__init__(f"Catalog {name!r}: it cannot be read. " + ADVICE)

def read(log, problem):
    log.warning("Waits %s s for the service.", problem)
    log.info("Nothing to see in this place.")
    if problem:
        raise ValueError(ADVICE)
    raise dg.Failure(f"{problem}")
'''


def test_messages_are_found_in_the_source() -> None:
    found = messages_of(Path("octogen_dagster/x.py"), ast.parse(SOURCE), {"ValueError", "Failure"})
    texts = {each.text: each.shown for each in found}
    assert texts == {
        "Run it again, when the service is back.": True,
        "Catalog …: it cannot be read.…": True,
        "Waits … s for the service.": True,
        "Nothing to see in this place.": False,
    }


@pytest.mark.parametrize(
    ("quote", "matches"),
    [
        ("The snapshot … was not published", True),
        ("The snapshot", True),
        ("…was not published: the service sent … products", True),
        ("was not published", False),
        ("The snapshot … was published", False),
    ],
)
def test_a_quote_is_the_beginning_of_a_message(quote: str, matches: bool) -> None:
    text = "The snapshot … was not published: the service sent … products…"
    assert Message(text, "a.py:1", shown=True).matches(quote) is matches
