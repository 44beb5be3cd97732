"""Answers to a request for the number of products."""

from __future__ import annotations

from typing import Any


def counted(count: int) -> dict[str, Any]:
    """An answer as the published model has it: `tests/api/test_published_product_count.py`."""
    return {
        "attributes": [],
        "categories": [{"key": "products", "count": count}],
        "facets": [],
        "effectiveQuery": {"text": "", "understood": False, "facets": []},
    }
