"""examples/own_source: a catalog source outside of the package, in Python and in YAML."""

from pathlib import Path

import catalog_file
import pytest

from octogen_dagster import ProductSearch, scan_products
from octogen_dagster.components import OctogenComponent
from octogen_dagster.errors import OctogenComponentError
from octogen_dagster.sandbox.server import Sandbox


def component(fields: object, name: str = "catalog_file.CatalogFile") -> OctogenComponent:
    return OctogenComponent.from_attributes_dict(attributes={"catalog_source": {name: fields}})


def test_a_search_reads_the_catalogs_of_the_source_in_yaml(tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("acme\nzen\n")
    source = component({"path": str(keys)}).catalog_source
    assert source == catalog_file.CatalogFile(str(keys))
    with Sandbox(catalogs={"acme": 3, "zen": 4, "vale": 5}) as sandbox:
        products = scan_products(
            ProductSearch(),
            api_key=sandbox.api_key,
            base_url=sandbox.base_url,
            catalog_source=source,
        ).collect()
    assert set(products["catalog_key"]) == {"acme", "zen"}


@pytest.mark.parametrize(
    ("fields", "found"),
    [({"pth": "keys.txt"}, "'pth'"), ({}, "'path'"), (None, "'path'"), ("keys.txt", "mapping")],
)
def test_a_mistake_in_its_fields_names_the_right_one(fields: object, found: str) -> None:
    with pytest.raises(OctogenComponentError, match=f"catalog_source.*{found}"):
        component(fields)


def test_a_class_that_is_not_a_source_is_rejected() -> None:
    with pytest.raises(OctogenComponentError, match="not a subclass of CatalogSource"):
        component({}, name="pathlib.Path")
