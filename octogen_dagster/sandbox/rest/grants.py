"""The catalogs the sandbox's organisation may read; they change while the server runs.

The server thread reads while the owner of the sandbox writes, so a change replaces the
whole mapping in one assignment.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from octogen_dagster.sandbox.data.catalog import Catalog, builtin_catalog_keys, make_catalog

CatalogChoice: TypeAlias = int | Sequence[str] | Mapping[str, int]
"""That many of the built-in catalogs, or catalog keys, or catalog key to number of products."""


class CatalogGrants:
    """Catalogs by key.

    Args:
        catalogs: Which are granted at first.
        products: The number of products of those for which `catalogs` does not say.
        seed: What makes the products of one sandbox different from another's.

    Raises:
        ValueError: A key is empty, a number is negative, or there are not that many.
    """

    def __init__(self, catalogs: CatalogChoice, products: int, seed: int) -> None:
        self._products = products
        self._seed = seed
        keys = builtin_catalog_keys(catalogs) if isinstance(catalogs, int) else catalogs
        counts = keys if isinstance(keys, Mapping) else dict.fromkeys(keys, products)
        self._catalogs = {key: make_catalog(key, count, seed) for key, count in counts.items()}

    def select(self, keys: Sequence[str] | None = None) -> list[Catalog]:
        """The catalogs with these keys, or all.

        Raises:
            LookupError: One of them is not granted.
        """
        catalogs = self._catalogs
        return list(catalogs.values()) if keys is None else [_get(catalogs, key) for key in keys]

    def grant(self, key: str, products: int | None) -> None:
        """Add a catalog, or replace one; None stands for the usual number of products."""
        count = self._products if products is None else products
        self._catalogs = self._catalogs | {key: make_catalog(key, count, self._seed)}

    def revoke(self, key: str) -> None:
        """Take a catalog away.

        Raises:
            LookupError: It is not granted.
        """
        revoked = _get(self._catalogs, key)
        self._catalogs = {k: v for k, v in self._catalogs.items() if v is not revoked}

    def touch(self, key: str) -> None:
        """Let one more index run of a catalog be over.

        Raises:
            LookupError: It is not granted.
        """
        self._catalogs = self._catalogs | {key: _get(self._catalogs, key).indexed_again()}


def _get(catalogs: Mapping[str, Catalog], key: str) -> Catalog:
    if key not in catalogs:
        granted = ", ".join(catalogs) or "none"
        raise LookupError(f"catalog {key!r} is not granted; granted: {granted}")
    return catalogs[key]
