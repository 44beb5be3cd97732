from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from octogen_dagster.frames.read import SeenProducts


@given(
    st.lists(st.lists(st.integers(0, 60).map(str), max_size=20), max_size=20),
    st.sampled_from([0, 30, 20_000]),
)
def test_each_product_is_new_once(batches: list[list[str]], recent: int) -> None:
    seen, known = SeenProducts(recent), set[str]()
    for batch in batches:
        expected = [uuid not in {*known, *batch[:at]} for at, uuid in enumerate(batch)]
        known.update(batch)
        assert seen.add(batch).to_list() == expected


def test_many_batches_of_many_products() -> None:
    seen = SeenProducts(4_096)
    for start in range(0, 50_000, 1_000):
        batch = [str(number) for number in range(start, start + 1_500)]
        assert seen.add(batch).sum() == (1_500 if start == 0 else 1_000)
