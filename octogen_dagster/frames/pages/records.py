"""The format of `read.json`, the record of saved pages."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import ValidationError

from octogen_dagster.api.search import CHECKED, ProductSearch
from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.pages.segments import digest
from octogen_dagster.frames.partition import parts_of
from octogen_dagster.frames.plan import Walk, split_by

if TYPE_CHECKING:
    from upath import UPath

VERSION = 1
READ_NAME = "read.json"


class SavedCatalog(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A catalog of a read, or one part of a catalog.

    Attributes:
        catalog: The catalog's key; None for a search of all catalogs at once.
        last_indexed_at: When the service had last indexed it as the read began; None if the
            service does not say.
        brands: The brands of a part, none for the remainder; unset for a whole catalog. Brands of
            earlier parts of the same catalog are not in it.
    """

    catalog: str | None
    last_indexed_at: datetime | None = None
    brands: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def of(cls, planned: Walk) -> SavedCatalog:
        """Return the entry of a planned catalog."""
        if planned.part is None:
            return cls(planned.catalog, planned.last_indexed_at)
        return cls(planned.catalog, planned.last_indexed_at, tuple(planned.part.brands))


class ReadRecord(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`read.json`: the service, the search and the catalogs of one read.

    Attributes:
        base_url: The base URL of the service.
        search: The search, as JSON.
        catalogs: The catalogs, in the order in which they are read.
        started_at: When the read began; if it continues another read, when that one began.
    """

    base_url: str
    search: dict[str, Any]
    catalogs: list[SavedCatalog]
    started_at: datetime
    version: int = VERSION
    digest: str = ""

    def encoded(self) -> bytes:
        """Return the content of the file, with the digest of all other fields."""
        signed = msgspec.structs.replace(self, digest=self._digest())
        return msgspec.json.format(msgspec.json.encode(signed), indent=1)

    def _digest(self) -> str:
        blank = msgspec.structs.replace(self, digest="")
        return digest(msgspec.json.encode(blank, order="sorted"))

    @property
    def is_intact(self) -> bool:
        """True if the fields match the digest, so they are what was written."""
        return self.digest == self._digest()

    def walks(self, planned: Walk) -> dict[int, Walk]:
        """Return the whole catalog or its parts as this read planned them, by their places.

        Args:
            planned: The whole catalog.
        """
        entries = {
            place: entry
            for place, entry in enumerate(self.catalogs)
            if entry.catalog == planned.catalog
        }
        if any(entry.brands is msgspec.UNSET for entry in entries.values()) or not entries:
            return dict.fromkeys(entries, planned)
        places = sorted(entries, key=lambda place: not entries[place].brands)  # the remainder last
        sets = [entries[place].brands or () for place in places[:-1]]
        return dict(zip(places, split_by(planned, parts_of(sets)), strict=True))

    def product_search(self) -> ProductSearch:
        """Return the search.

        Raises:
            OctogenSnapshotError: The search has a field that this version does not know.
        """
        try:
            return ProductSearch.model_validate(self.search, context=CHECKED)
        except ValidationError as error:
            raise OctogenSnapshotError(
                "Saved pages are of a search that this version of octogen-dagster does not know: "
                f"{error}. Update octogen-dagster."
            ) from None


class _Versioned(msgspec.Struct):
    version: int = 0


def decode_record(content: bytes, path: UPath) -> ReadRecord:
    """Decode the content of `read.json`.

    Args:
        content: The content of the file.
        path: The file, for error messages.

    Raises:
        OctogenSnapshotError: The content is damaged or of another version.
    """
    advice = "Remove its folder while no run is under way."
    try:
        version = msgspec.json.decode(content, type=_Versioned).version
        if version != VERSION:
            raise OctogenSnapshotError(
                f"The record of saved pages {path} has version {version}, and this version of "
                f"octogen-dagster reads {VERSION}: update octogen-dagster."
            )
        record = msgspec.json.decode(content, type=ReadRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise OctogenSnapshotError(
            f"The record of saved pages {path} is damaged ({error}). {advice}"
        ) from None
    if not record.is_intact:
        raise OctogenSnapshotError(
            f"The record of saved pages {path} is not what was written. {advice}"
        )
    return record
