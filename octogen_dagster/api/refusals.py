"""What a service refuses, learned once for all clients of a connection."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Refusals:
    """The fields of one operation that the service refuses.

    Clients in several threads may share an instance. A copy or pickle begins anew.

    Attributes:
        fields: The names of the refused fields; none until a response shows otherwise.
    """

    def __init__(self) -> None:
        self.fields: frozenset[str] = frozenset()
        self._first: Future[None] | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Refusals], tuple[()]]:
        return type(self), ()

    @asynccontextmanager
    async def learned_once(self) -> AsyncIterator[None]:
        """Run the block of the first caller alone; all others wait until it has ended.

        So requests that begin at the same time are not all refused for the same field.
        """
        with self._lock:
            first, is_first = self._first, self._first is None
            if first is None:
                first = self._first = Future()
        if is_first:
            try:
                yield
            finally:
                first.set_result(None)
        else:
            if not first.done():
                # The shield keeps a caller that is cancelled from cancelling the others' future.
                await asyncio.shield(asyncio.wrap_future(first))
            yield


@dataclass(frozen=True)
class ServiceRefusals:
    """The refusals of one service.

    Attributes:
        search: What it refuses in a search.
        lookup: What it refuses in a lookup.
    """

    search: Refusals = field(default_factory=Refusals)
    lookup: Refusals = field(default_factory=Refusals)
