"""Limits of this process that a test lowers."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def limited(limit: int, value: int) -> Iterator[None]:
    """Lower a limit, such as `resource.RLIMIT_NOFILE`, while the context is open."""
    before = resource.getrlimit(limit)
    resource.setrlimit(limit, (value, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(limit, before)
