"""Pushdown: the part of a Polars predicate that the service can apply exactly.

Bounds on `current_price` and equality or `is_in` on `catalog_key` are pushed down, alone or joined
with "and". Polars applies the whole predicate to the result. Facets are never derived from a
predicate, because the service filters by canonical values, which can differ from a product's
values.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from typing import Any

import polars as pl

_FLIPPED = {"Gt": "Lt", "GtEq": "LtEq", "Lt": "Gt", "LtEq": "GtEq", "Eq": "Eq"}


@dataclass(slots=True)
class Pushdown:
    """Request parameters derived from a predicate. Both price bounds are inclusive."""

    price_min: float = -math.inf
    price_max: float = math.inf
    catalogs: frozenset[str] | None = None  # catalog keys; None for any

    @classmethod
    def of(cls, predicate: pl.Expr) -> Pushdown:
        """Return the request parameters for the parts of a predicate that can be pushed down."""
        pushdown = cls()
        try:
            tree = json.loads(predicate.meta.serialize(format="json"))
        # Polars guarantees neither the method nor its output format.
        except (pl.exceptions.PolarsError, ValueError, AttributeError, TypeError):
            return pushdown
        pushdown._take(tree)
        return pushdown

    def _take(self, node: Any) -> None:
        match node:
            case {"BinaryExpr": {"left": left, "op": "And", "right": right}}:
                self._take(left)
                self._take(right)
            case {"BinaryExpr": {"left": {"Column": column}, "op": op, "right": value}}:
                self._compare(column, op, _literal(value))
            case {"BinaryExpr": {"left": value, "op": op, "right": {"Column": column}}}:
                self._compare(column, _FLIPPED.get(op, ""), _literal(value))
            case {
                "Function": {
                    "input": [{"Column": column}, low, high],
                    "function": {"Boolean": {"IsBetween": _}},
                }
            }:
                self._compare(column, "GtEq", _literal(low))
                self._compare(column, "LtEq", _literal(high))
            case {
                "Function": {
                    "input": [{"Column": "catalog_key"}, values],
                    "function": {"Boolean": {"IsIn": _}},
                }
            }:
                self._restrict(_literal(values))

    def _compare(self, column: str, op: str, value: Any) -> None:
        if column == "catalog_key" and op == "Eq" and isinstance(value, str):
            self._restrict([value])
        if column != "current_price" or not isinstance(value, int | float):
            return
        # The service rejects such bounds; Polars applies them anyway.
        if not math.isfinite(value) or value < 0:
            return
        if op in ("Gt", "GtEq", "Eq"):
            self.price_min = max(self.price_min, value)
        if op in ("Lt", "LtEq", "Eq"):
            self.price_max = min(self.price_max, value)

    def _restrict(self, keys: Any) -> None:
        if isinstance(keys, list) and all(isinstance(key, str) for key in keys):
            self.catalogs = frozenset(keys) if self.catalogs is None else self.catalogs & set(keys)


def _literal(node: Any) -> Any:
    """Return a literal node's value; None for other nodes."""
    if not isinstance(node, dict) or node.keys() - {"Literal", "Cast"}:
        return None
    try:
        expression = pl.Expr.deserialize(io.StringIO(json.dumps(node)), format="json")
        if expression.meta.root_names():
            return None
        value = pl.select(expression).to_series()
    except (pl.exceptions.PolarsError, ValueError):
        return None
    if isinstance(value.dtype, pl.List | pl.Array):
        value = value.explode(empty_as_null=False)
        return value.to_list()
    return value.item() if len(value) == 1 else value.to_list()
