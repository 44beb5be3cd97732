"""LogMask: keeps secrets out of what the libraries log that handle them."""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Masker(Protocol):
    """Something that has a secret, such as an API key."""

    def masked(self, text: str) -> str:
        """Return a text without the secret."""


class LogMask(logging.Filter):
    """Masks what some loggers log, with every masker that is alive.

    It stays on the loggers once it is there: taking it off while another thread logs could let
    that thread's record pass.

    Args:
        loggers: The names of the loggers that quote requests and responses.
    """

    def __init__(self, loggers: Sequence[str]) -> None:
        super().__init__()
        self._loggers = loggers
        self._maskers: weakref.WeakSet[Masker] = weakref.WeakSet()
        self._lock = threading.Lock()

    def add(self, masker: Masker) -> None:
        """Mask the secret of `masker` for as long as it lives."""
        with self._lock:
            self._maskers.add(masker)
        for name in self._loggers:
            logging.getLogger(name).addFilter(self)  # does nothing the second time

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask a record; called by `logging`."""
        with self._lock:
            maskers = list(self._maskers)
        if maskers:
            text = record.getMessage()
            for masker in maskers:
                text = masker.masked(text)
            record.msg, record.args = text, None
            # A traceback quotes parts of responses. The error that is raised says the same.
            record.exc_info = record.exc_text = None
        return True


HTTP_LOGS = LogMask(
    ("httpx", *(f"httpcore.{part}" for part in ("connection", "http11", "http2", "proxy", "socks")))
)
"""The logs of httpx, which quote the reason phrase and the headers of responses."""
