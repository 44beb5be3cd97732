"""ServiceScan: a LazyScan whose rows come from Octogen's REST API."""

from __future__ import annotations

import logging
from abc import ABC
from dataclasses import replace
from typing import TYPE_CHECKING

from octogen_dagster.frames.lazy_scan import LazyScan

if TYPE_CHECKING:
    from collections.abc import Callable

    from octogen_dagster.api.connection import Connection
    from octogen_dagster.api.spending import Spending
    from octogen_dagster.frames.statistics import ReadStatistics

_LOGGER = logging.getLogger(__name__)


class ServiceScan(LazyScan, ABC):
    """A lazy scan whose rows come from the service.

    Attributes:
        connection: The settings of the service.
        statistics: The statistics of the last execution.
        report_interval_seconds: The time between two progress reports.
    """

    connection: Connection
    statistics: ReadStatistics
    _warn: Callable[[str], None] = _LOGGER.warning
    report_interval_seconds = 10.0

    def incomplete_reason(self, rows: int) -> str | None:
        """`SnapshotSource.incomplete_reason`."""
        if self.statistics.complete and rows == self.statistics.rows:
            return None
        return f"{rows} rows were written of {self.statistics.rows} read."

    @property
    def spending(self) -> Spending:
        """`SnapshotSource.spending`."""
        return self.connection.spending

    def _own_connection(self) -> Connection:
        """The connection of one execution, with an end, costs and a log of waits of its own."""
        connection = self.connection.with_own_spending().with_log(self._warn)
        return replace(connection, scope=self._scope)
