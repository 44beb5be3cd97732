"""Whole messages in golden files, so that tests need not quote their wording.

`tests/golden/messages/<kind>.txt` has one entry for each message that a test compares with the
fixture `golden`. `UPDATE_GOLDEN=1 uv run pytest -n 0 PATHS` rewrites them.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest

TESTS = Path(__file__).parent
FOLDER = TESTS / "golden" / "messages"
IS_UPDATE = bool(os.environ.get("UPDATE_GOLDEN"))
VARIABLE = [
    (re.compile(r"\b(127\.0\.0\.1|localhost):\d+"), r"\1:<port>"),
    (re.compile(r"\bcatalogs-[0-9a-f]{8}\b"), "<bucket>"),
    (re.compile(r"\boctogen_dagster_[0-9a-f]{32}"), "<job>"),
    (re.compile(r"\b\d\d:\d\d:\d\d UTC"), "<time>"),
    (re.compile(r": [^:]*: Error performing .+?(?=\. Check )"), ": <error of the store>"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<id>"),
]
E = TypeVar("E", bound=BaseException)
Kinds = dict[str, dict[str, str]]
"""For each kind, the text of each entry."""


class Entry(NamedTuple):
    """The place of a message in the golden files."""

    kind: str
    name: str

    @property
    def test(self) -> str:
        return self.name.partition(" #")[0]


def parse(text: str) -> dict[str, str]:
    """Return the entries of a golden file: a name, and its message indented by four spaces."""
    entries: dict[str, list[str]] = defaultdict(list)
    name = ""
    for line in text.split("\n"):
        if line and not line.startswith(" "):
            name = line
        elif name:
            entries[name].append(line[4:])
    return {name: "\n".join(lines[:-1]) for name, lines in entries.items()}


def render(entries: Mapping[str, str]) -> str:
    """Return the text of a golden file."""
    blocks = []
    for name, message in sorted(entries.items()):
        lines = [f"    {line}" if line else "" for line in message.split("\n")]
        blocks.append("\n".join([name, *lines, ""]))
    return "\n".join(blocks)


def read_all() -> Kinds:
    """Return the entries of all golden files."""
    return {path.stem: parse(path.read_text()) for path in sorted(FOLDER.glob("*.txt"))}


class GoldenMessages:
    """The golden files during a session, and the messages that its tests compared."""

    def __init__(self) -> None:
        self.kinds = read_all()
        self.compared: dict[Entry, str] = {}
        self.passed: set[str] = set()
        self.collected: set[str] = set()
        self.files: set[str] = set()

    def note_collected(self, items: Iterable[pytest.Item], arguments: Iterable[str]) -> None:
        """Record the tests of a session, before some of them are deselected."""
        self.collected = {test_name(item) for item in items}
        if not any("::" in each for each in arguments):
            self.files = {name.partition("::")[0] for name in self.collected}

    def finish(self, test: str) -> list[Entry]:
        """Record that a test passed, and return its entries that it did not compare."""
        self.passed.add(test)
        return [each for each in self.entries() if each.test == test and self._is_stale(each)]

    def entries(self) -> list[Entry]:
        """Return the places of all messages."""
        return [Entry(kind, name) for kind, texts in self.kinds.items() for name in texts]

    def stale(self) -> list[Entry]:
        """Return the entries whose test no longer exists, or no longer compares them."""
        return [each for each in self.entries() if self._is_stale(each)]

    def _is_stale(self, entry: Entry) -> bool:
        file = entry.name.partition("::")[0]
        is_left = file in self.files and entry.test not in self.collected
        is_unused = entry.test in self.passed and entry not in self.compared
        return is_left or is_unused or not (TESTS / file).exists()

    def write(self) -> None:
        """Write the messages of this session, without entries that are stale."""
        for kind, name in self.stale():
            del self.kinds[kind][name]
        for (kind, name), text in self.compared.items():
            self.kinds.setdefault(kind, {})[name] = text
        FOLDER.mkdir(exist_ok=True)
        for kind, texts in self.kinds.items():
            (FOLDER / f"{kind}.txt").write_text(render(texts))


def test_name(item: pytest.Item) -> str:
    return f"{item.path.relative_to(TESTS).as_posix()}::{item.name}"


class Golden:
    """Compare the messages of a test with the golden files."""

    def __init__(self, messages: GoldenMessages, test: str, folder: Path) -> None:
        self._messages, self._test, self._folder = messages, test, folder
        self._counts: dict[str, count[int]] = defaultdict(lambda: count(1))

    def __call__(self, kind: str, text: object, **variable: object) -> None:
        """Compare a text with the next entry of this test in `<kind>.txt`.

        `variable` are names of values that differ between runs, such as `seconds=1.25`: the golden
        file has `<seconds>` in their place. The test's folder and what matches `VARIABLE` are
        replaced automatically.
        """
        number = next(self._counts[kind])
        entry = Entry(kind, self._test if number == 1 else f"{self._test} #{number}")
        message = self._without_variable(str(text), variable)
        self._messages.compared[entry] = message
        if not IS_UPDATE:
            golden = self._messages.kinds.get(kind, {}).get(entry.name)
            assert golden is not None, f"{kind}.txt has no entry {entry.name}: UPDATE_GOLDEN=1"
            assert message == golden

    @contextmanager
    def raises(self, error: type[E], **variable: object) -> Iterator[pytest.ExceptionInfo[E]]:
        """Expect an error, and compare its message with the next entry in `errors.txt`."""
        with pytest.raises(error) as caught:
            yield caught
        self("errors", caught.value, **variable)

    def _without_variable(self, text: str, variable: Mapping[str, object]) -> str:
        for name, value in {**variable, "folder": self._folder}.items():
            text = text.replace(str(value), f"<{name}>")
        for pattern, placeholder in VARIABLE:
            text = pattern.sub(placeholder, text)
        return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))
