"""The catalogs that the organisation may read.

The server thread reads while another thread makes changes. Therefore a change replaces the whole
mapping in one assignment.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from octogen_dagster.sandbox.data.catalog import Catalog, builtin_catalog_keys, make_catalog

CatalogChoice: TypeAlias = int | Sequence[str] | Mapping[str, int]
"""A number of built-in catalogs, or catalog keys, or catalog key to number of products."""


class CatalogGrants:
    """The granted catalogs, by key.

    Args:
        catalogs: The catalogs that are granted at first.
        products: The number of products of each catalog for which `catalogs` gives none.
        seed: The seed of the products.

    Raises:
        ValueError: A key is empty, a number is negative, or there are fewer built-in catalogs.
    """

    def __init__(self, catalogs: CatalogChoice, products: int, seed: int) -> None:
        self._products = products
        self._seed = seed
        keys = builtin_catalog_keys(catalogs) if isinstance(catalogs, int) else catalogs
        counts = keys if isinstance(keys, Mapping) else dict.fromkeys(keys, products)
        self._catalogs = {key: make_catalog(key, count, seed) for key, count in counts.items()}
        self._shops = dict(self._catalogs)

    def select(self, keys: Sequence[str] | None = None) -> list[Catalog]:
        """Return the catalogs with these keys; by default all.

        Raises:
            LookupError: A catalog is not granted.
        """
        catalogs = self._catalogs
        return list(catalogs.values()) if keys is None else [_get(catalogs, key) for key in keys]

    def known(self, keys: Sequence[str] | None = None) -> list[Catalog]:
        """Return those of the catalogs with these keys that are granted; by default all."""
        catalogs = self._catalogs
        wanted = catalogs if keys is None else dict.fromkeys(keys)
        return [catalogs[key] for key in wanted if key in catalogs]

    def shops(self) -> list[Catalog]:
        """Return all catalogs that were ever granted, whose shops are still in business."""
        return list(self._shops.values())

    def grant(self, key: str, products: int | None) -> None:
        """Add or replace a catalog.

        Args:
            key: The catalog key.
            products: The number of products; None for the default.
        """
        count = self._products if products is None else products
        catalog = make_catalog(key, count, self._seed)
        self._shops = self._shops | {key: catalog}
        self._catalogs = self._catalogs | {key: catalog}

    def revoke(self, key: str) -> None:
        """Remove a catalog.

        Raises:
            LookupError: The catalog is not granted.
        """
        revoked = _get(self._catalogs, key)
        self._catalogs = {k: v for k, v in self._catalogs.items() if v is not revoked}

    def touch(self, key: str) -> None:
        """Move the `last_indexed_at` of a catalog to the next index run.

        Raises:
            LookupError: The catalog is not granted.
        """
        self._catalogs = self._catalogs | {key: _get(self._catalogs, key).indexed_again()}

    def next_day(self) -> None:
        """Move all catalogs on by a day."""
        self._catalogs = {key: catalog.next_day() for key, catalog in self._catalogs.items()}

    def set_price(self, url: str, price: float) -> None:
        """Set the price of the product with this URL.

        Raises:
            LookupError: No catalog has such a product.
        """
        catalog, index = self._find(url)
        self._catalogs = self._catalogs | {catalog.key: catalog.with_price(index, price)}

    def remove_product(self, url: str) -> None:
        """Remove the product with this URL from its catalog.

        Raises:
            LookupError: No catalog has such a product.
        """
        catalog, index = self._find(url)
        self._catalogs = self._catalogs | {catalog.key: catalog.without(index)}

    def _find(self, url: str) -> tuple[Catalog, int]:
        for catalog in self._catalogs.values():
            product = catalog.find(url)
            if product is not None:
                return catalog, product.index
        raise LookupError(f"no catalog has a product with the URL {url!r}: take one from a search")


def _get(catalogs: Mapping[str, Catalog], key: str) -> Catalog:
    if key not in catalogs:
        granted = ", ".join(catalogs) or "none"
        raise LookupError(f"catalog {key!r} is not granted; granted: {granted}: grant it first")
    return catalogs[key]
