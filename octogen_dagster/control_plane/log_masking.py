"""A filter that keeps tokens out of the log of the `mcp` package."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOGGERS = ("mcp.client.streamable_http", "mcp.shared.jsonrpc_dispatcher", "client")
"""The loggers of the `mcp` package that quote requests and responses."""


@contextlib.contextmanager
def masking_logs(masked: Callable[[str], str]) -> Iterator[None]:
    """Mask what the `mcp` package logs while the block runs.

    Args:
        masked: Returns a text without the secrets in it.
    """
    mask = _Mask(masked)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addFilter(mask)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(mask)


class _Mask(logging.Filter):
    def __init__(self, masked: Callable[[str], str]) -> None:
        super().__init__()
        self._masked = masked

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self._masked(record.getMessage()), None
        # A traceback quotes parts of responses. The error that the call raises says the same.
        record.exc_info = record.exc_text = None
        return True
