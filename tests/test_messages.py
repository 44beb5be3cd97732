"""Golden messages are compared as a whole, and entries that nothing compares fail a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import messages
from tests.messages import Entry, Golden, GoldenMessages, parse, render


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of golden files for this test only."""
    monkeypatch.setattr(messages, "FOLDER", tmp_path)
    monkeypatch.setattr(messages, "IS_UPDATE", False)
    return tmp_path


def test_no_entry_of_the_golden_files_is_stale(golden_messages: GoldenMessages) -> None:
    assert golden_messages.stale() == []


def test_a_rendered_file_is_parsed_again() -> None:
    entries = {"a.py::test_a[x y]": "one\n\n  two:", "b.py::test_b": "", "b.py::test_b #2": "\n"}
    assert parse(render(entries)) == entries


def test_a_message_is_compared_without_what_varies(files: Path) -> None:
    (files / "errors.txt").write_text(
        "a.py::test\n    No <folder>/x at 127.0.0.1:<port> in <seconds>\n"
    )
    for port, seconds in ((80, 1.5), (8080, 20)):
        golden = Golden(GoldenMessages(), "a.py::test", files)
        golden("errors", f"No {files}/x at 127.0.0.1:{port} in {seconds}", seconds=seconds)
    with pytest.raises(AssertionError):
        Golden(GoldenMessages(), "a.py::test", files)("errors", "Another text")
    with pytest.raises(AssertionError, match="UPDATE_GOLDEN"):
        Golden(GoldenMessages(), "a.py::test", files)("logs", "Another kind")


def test_entries_are_stale_once_no_test_compares_them(files: Path) -> None:
    tests = ("test_messages.py::test_kept", "test_messages.py::test_left", "deleted.py::test")
    (files / "errors.txt").write_text(render(dict.fromkeys([*tests, f"{tests[0]} #2"], "text")))
    session = GoldenMessages()
    session.collected, session.files = {tests[0]}, {"test_messages.py"}
    Golden(session, tests[0], files)("errors", "text")
    session.passed.add(tests[0])
    assert session.stale() == [
        Entry("errors", name) for name in ("deleted.py::test", f"{tests[0]} #2", tests[1])
    ]
    session.write()
    assert (files / "errors.txt").read_text() == render({tests[0]: "text"})
