from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octogen_dagster.snapshots.partitions import catalog_of, catalog_partition_key, path_component

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)


@given(names.filter(str.strip))
def test_a_catalog_key_survives_the_way_to_a_partition_key_and_back(catalog: str) -> None:
    key = catalog_partition_key(catalog)
    assert catalog_of(key) == catalog
    assert not set(key) & set(',|/\\"\n\r\t')
    assert "..." not in key


@given(names, names)
def test_two_catalogs_never_share_a_partition(one: str, other: str) -> None:
    if one.strip() and other.strip() and one != other:
        assert catalog_partition_key(one) != catalog_partition_key(other)


@given(names)
def test_a_path_component_is_one_component_that_stays_in_its_folder(key: str) -> None:
    component = path_component(key)
    path = PurePosixPath("base") / component
    assert path.parent == PurePosixPath("base")
    assert component not in {".", ".."}
    assert not component.startswith(".")


@pytest.mark.parametrize(
    ("key", "component"),
    [
        ("acme", "acme"),
        ("2026-11-24", "2026-11-24"),
        ("fjord.field", "fjord.field"),
        ("../x", "%2E%2E%2Fx"),
        ("a/b", "a%2Fb"),
        ("...", "%2E%2E%2E"),
        ("a|b", "a%7Cb"),
        ("a%2Fb", "a%252Fb"),
        ("é", "%C3%A9"),
    ],
)
def test_what_keys_look_like_as_paths(key: str, component: str) -> None:
    assert path_component(key) == component


def test_a_catalog_key_must_not_be_empty() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        catalog_partition_key(" ")


@pytest.mark.parametrize("key", ["", "x" * 201])
def test_a_key_that_cannot_name_a_file_is_an_error(key: str) -> None:
    with pytest.raises(ValueError, match="cannot name a file"):
        path_component(key)
