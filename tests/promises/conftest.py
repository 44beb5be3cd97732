"""The fixtures of tests that ask both clients."""

from tests.api.conftest import (
    _no_proxy_from_outside,
    current,
    either,
    sandbox,
    silent_log,
    silent_own_log,
    transport,
)

__all__ = [
    "_no_proxy_from_outside",
    "current",
    "either",
    "sandbox",
    "silent_log",
    "silent_own_log",
    "transport",
]
