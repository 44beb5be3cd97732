"""What Octogen shares over BigQuery, with a subscriber that registers and subscribes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from tests.api.servers import RawServer
from tests.servers.google import EXCHANGE
from tests.servers.octogen_mcp import PRINCIPAL, PROJECT, OctogenServer


class Octogen(OctogenServer):
    """Octogen's MCP server, which remembers its subscribers.

    Args:
        failing: The code of the error that a tool answers with, by the tool's name.

    Attributes:
        listings: The entries of `list_bigquery_listing_resources`.
        cells: The cells of each subscriber, without the subscriber's id.
        subscribers: The registered subscribers.
    """

    def __init__(self, failing: dict[str, str] | None = None) -> None:
        super().__init__()
        self.listings: list[dict[str, Any]] = []
        self.cells: list[dict[str, Any]] = []
        self.subscribers: list[dict[str, Any]] = []
        self.tools = {
            "list_bigquery_listing_resources": self._list,
            "list_bigquery_subscribers": self._list_subscribers,
            "register_bigquery_subscriber": self._register_subscriber,
            "refresh_bigquery_subscription_status": self._refresh,
        }
        for tool, code in (failing or {}).items():
            self.tools[tool] = {"error": code, "message": "On request."}

    @property
    def asked(self) -> list[str]:
        """The tools that were called."""
        return [name for name in self.calls if name in self.tools]

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Serve, once or again; yield the URL of the MCP server."""
        self._server = RawServer(self._respond)
        with self:
            yield self.mcp_url

    def share(
        self, catalog: str, status: str | None = "awaiting_subscription", **cell: Any
    ) -> dict[str, Any]:
        """Share a catalog, with these fields of its cell; return its listing."""
        dataset = f"octogen_{re.sub('[^a-z0-9]', '_', catalog)}"
        listing = {
            "catalogKey": catalog,
            "listingResource": f"{EXCHANGE}/listings/{catalog}",
            "linkedDatasetSuggestion": dataset,
            "location": "us",
            "sampleQuery": f"SELECT * FROM `{PROJECT}.{dataset}.products_current_v1`;",
        }
        self.listings.append(listing)
        self.cells.append(listing | {"status": status, "reasonCode": None} | cell)
        return listing

    def register(self, **fields: Any) -> Octogen:
        """Register the subscriber before a test begins."""
        subscriber = {
            "subscriberId": "subscriber-1",
            "subscriberProjectId": PROJECT,
            "subscriberPrincipal": PRINCIPAL,
            "desiredState": "enabled",
        }
        self.subscribers.append(subscriber | fields)
        return self

    def _list(self, catalogs: list[str] | None = None) -> Any:
        keys = [each["catalogKey"] for each in self.listings]
        if any(key not in keys for key in catalogs or ()):
            return {"error": "catalog_not_granted", "message": "A catalog is not granted."}
        return [each for each in self.listings if not catalogs or each["catalogKey"] in catalogs]

    def _list_subscribers(self) -> Any:
        cells = [
            {"subscriberId": each["subscriberId"]} | cell
            for each in self.subscribers
            for cell in self.cells
        ]
        return {"subscribers": self.subscribers, "cells": cells}

    def _register_subscriber(self, request: dict[str, Any]) -> Any:
        assert list(request.values()) == [PROJECT, PRINCIPAL]
        self.register()
        return self._list_subscribers() | {"subscriber": self.subscribers[-1]}

    def _refresh(self, catalog_key: str, **_: str) -> Any:
        for cell in self.cells:
            if cell.get("catalogKey") == catalog_key:
                cell["status"] = "active"
        return {"catalogKey": catalog_key, "status": "active"}
