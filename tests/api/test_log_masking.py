from __future__ import annotations

import logging
import threading

import pytest

from octogen_dagster.api.log_masking import LogMask

LOGGER = "tests.log_masking"


class Masker:
    """Masks one word."""

    def __init__(self, word: str) -> None:
        self.word = word

    def masked(self, text: str) -> str:
        return text.replace(self.word, "[masked]")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("DEBUG", logger=LOGGER)
    return caplog


def test_messages_arguments_and_tracebacks_are_masked(log: pytest.LogCaptureFixture) -> None:
    mask, first, second = LogMask([LOGGER]), Masker("SECRET"), Masker("TOKEN")
    mask.add(first)
    mask.add(second)
    try:
        raise ValueError("SECRET")
    except ValueError:
        logging.getLogger(LOGGER).exception("sent %s and %s", "SECRET", "TOKEN")
    (record,) = log.records
    assert record.getMessage() == "sent [masked] and [masked]"
    assert "SECRET" not in log.text


def test_a_secret_is_masked_for_as_long_as_its_masker_lives(log: pytest.LogCaptureFixture) -> None:
    mask, masker = LogMask([LOGGER]), Masker("SECRET")
    mask.add(masker)
    mask.add(masker)
    assert logging.getLogger(LOGGER).filters.count(mask) == 1
    del masker
    logging.getLogger(LOGGER).info("SECRET")
    assert log.messages == ["SECRET"]


def test_maskers_may_come_while_another_thread_logs(log: pytest.LogCaptureFixture) -> None:
    mask, kept = LogMask([LOGGER]), [Masker("SECRET")]
    mask.add(kept[0])

    def add_many() -> None:
        for number in range(500):
            kept.append(Masker(f"<{number}>"))
            mask.add(kept[-1])

    thread = threading.Thread(target=add_many)
    thread.start()
    for _ in range(100):
        logging.getLogger(LOGGER).info("SECRET")
    thread.join()
    assert set(log.messages) == {"[masked]"}
