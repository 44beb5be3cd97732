"""A table of products that a test writes, with its checks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from octogen_dagster import build_snapshot_checks
from octogen_dagster.schemas import PRODUCT_SCHEMA
from tests.results import materialized

ALL = frozenset({"rows_within_bounds", "nulls", "prices", "fresh"})
"""The names of all checks."""


def products(count: int = 20, **columns: Any) -> pl.DataFrame:
    """Products with nothing wrong, but for the columns that are given."""
    ids = range(count)
    right: dict[str, Any] = {
        "uuid": [f"p{number}" for number in ids],
        "catalog_key": ["acme"] * count,
        "product_url": [f"https://acme.example/{number}" for number in ids],
        "title": [f"Shoe {number}" for number in ids],
        "current_price": [10.0 + number for number in ids],
        "currency": ["EUR"] * count,
    }
    return pl.DataFrame(
        {name: (right | columns).get(name, [None] * count) for name in PRODUCT_SCHEMA},
        schema=PRODUCT_SCHEMA,
    )


@dataclass
class CheckedAsset:
    """An asset of products whose rows and metadata a test sets before each materialization.

    Attributes:
        folder: The folder of the snapshots.
        instance: The Dagster instance.
        frame: The rows.
        metadata: The metadata of the materialization.
        partitions_def: The partitions.
        settings: The arguments of `build_snapshot_checks`.
    """

    folder: Path
    instance: dg.DagsterInstance
    frame: pl.DataFrame = field(default_factory=products)
    metadata: dict[str, Any] = field(default_factory=dict)
    partitions_def: dg.PartitionsDefinition[str] | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def assets(self) -> list[Any]:
        """The asset, its checks and an asset downstream."""

        @dg.asset(name="products", partitions_def=self.partitions_def)
        def own() -> dg.MaterializeResult[pl.DataFrame]:
            return dg.MaterializeResult(value=self.frame, metadata=self.metadata)

        @dg.asset(partitions_def=self.partitions_def, deps=[own])
        def downstream() -> None: ...

        return [own, downstream, *build_snapshot_checks(own, **self.settings)]

    def run(
        self,
        partition: str | None = None,
        selection: dg.AssetSelection | None = None,
        tags: dict[str, str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Materialize everything, or a selection."""
        return materialized(
            self.assets(),
            self.folder,
            instance=self.instance,
            partition_key=partition,
            selection=selection,
            tags=tags,
            raise_on_error=False,
        )

    def check(self, name: str, partition: str | None = None) -> dg.AssetCheckEvaluation:
        """Materialize the asset, and return what one of the checks says."""
        with_one = dataclasses.replace(self, settings={**self.settings, "exclude": ALL - {name}})
        return evaluations(with_one.run(partition, dg.AssetSelection.assets("products")))[name]


def evaluations(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    """The evaluations of a run by the names of the checks."""
    return {each.check_name: each for each in result.get_asset_check_evaluations()}


def failed(result: dg.ExecuteInProcessResult) -> set[str]:
    """The names of the checks that failed."""
    return {name for name, each in evaluations(result).items() if not each.passed}


def numbers(evaluation: dg.AssetCheckEvaluation) -> dict[str, Any]:
    """The metadata of an evaluation without its prefix."""
    return {
        name.removeprefix("octogen/"): entry.value for name, entry in evaluation.metadata.items()
    }
