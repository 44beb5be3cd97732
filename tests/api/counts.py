"""Answers to a request for the number of products."""

from __future__ import annotations

from typing import Any

CATEGORY = "category_path.depth_0"


def counted(count: int, **others: int) -> dict[str, Any]:
    """An answer as the published model has it: `tests/contract/test_published_counts.py`.

    Args:
        count: The products of one category.
        others: Those of others, by their names.
    """
    categories = {"apparel & accessories": count} | others
    values = [{"value": name, "count": of_it} for name, of_it in categories.items()]
    return {
        "attributes": [],
        "categories": [],
        "facets": [{"name": CATEGORY, "values": values}],
        "effectiveQuery": {"text": "", "understood": False, "facets": []},
    }
