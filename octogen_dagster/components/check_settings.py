"""What a YAML file says of the checks of a snapshot."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

import dagster as dg
from pydantic import Field, model_validator
from typing_extensions import Self

from octogen_dagster.components.yaml_component import YamlModel

Hours = Annotated[float, Field(gt=0)]


class CheckSettings(YamlModel):
    """The arguments of `build_snapshot_checks`; those that are left out have its defaults."""

    max_age_hours: Hours | None = Field(
        default=None,
        description="Hours after which a catalog that was not materialized fails `fresh`; 48 by "
        "default, and null leaves the check out.",
    )
    max_rows_change: float | None = Field(
        default=None,
        description="Share by which the rows may differ from the last snapshots; null leaves "
        "`rows_within_bounds` out.",
    )
    max_null_share: dict[str, float] | None = Field(
        default=None,
        description="The largest share of nulls of columns by name; null leaves `nulls` out.",
    )
    max_bad_price_share: float | None = Field(
        default=None,
        description="Share of the products whose price may be bad; null leaves `prices` out.",
    )
    price_outlier_ratio: float = Field(
        default=100.0, description="How many times a price may be above or below the median."
    )
    exclude: list[str] = Field(default_factory=list, description="Names of checks to leave out.")
    blocking: bool = Field(
        default=False, description="Keep what is downstream from running after a failed check."
    )
    severity: Literal["ERROR", "WARN"] = Field(
        default="ERROR", description="The severity of a failed check."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        from octogen_dagster.snapshots.checks import build_snapshot_checks

        products = dg.AssetsDefinition(specs=[dg.AssetSpec("products")])
        build_snapshot_checks(products, **self.arguments())  # has the ranges of the fields
        return self

    def arguments(self) -> dict[str, Any]:
        """The arguments of `build_snapshot_checks` that are set."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        if "severity" in given:
            given["severity"] = dg.AssetCheckSeverity(given["severity"])
        if "max_age_hours" in given:
            hours = given.pop("max_age_hours")
            given["max_age"] = None if hours is None else timedelta(hours=hours)
        return given
