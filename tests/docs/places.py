"""The local Octogen in which blocks of the documents run."""

from __future__ import annotations

from typing import NamedTuple

from octogen_dagster.sandbox.server import Sandbox

CATALOG = "strada"
"""A catalog that sells boots, as most blocks look for."""


class Place(NamedTuple):
    """A sandbox with one catalog, which is shared over Analytics Hub too."""

    sandbox: Sandbox

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a reader has set."""
        return self.sandbox.environment | {
            "OCTOGEN_SNAPSHOTS": "snapshots",
            "RUNTIME__DLTHUB_TELEMETRY": "false",
        }

    @property
    def listing(self) -> str:
        """The resource name of the catalog's listing."""
        return self.sandbox.hub.listing_resource(CATALOG)

    def fill_in(self, source: str) -> str:
        """The source with names of this sandbox for those that a reader replaces by their own."""
        examples = {
            "acme.com": self.sandbox.hosts[0],
            "acme": CATALOG,
            "gs://my-bucket": "bucket",
            "octo_live_…": self.sandbox.api_key,
            "projects/…/listings/…": self.listing,
        }
        for example, name in examples.items():
            source = source.replace(example, name)
        return source
