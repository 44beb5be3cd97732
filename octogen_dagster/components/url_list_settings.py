"""The YAML of URL lists: the table of each, and what is read of its export."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from octogen_dagster.components.settings import (
    AssetSettings,
    Name,
    Percent,
    Translation,
)
from octogen_dagster.components.yaml_model import (
    Duration,
    Text,
    YamlModel,
    check_not_written_out,
    text_for,
)
from octogen_dagster.validation import require_extras


class UrlCoverageSettings(YamlModel):
    """The settings of what is read of the export of a URL list."""

    project: Text
    """Your Google Cloud project; it pays for queries."""
    gcp_credentials: Text | None = None
    """A key file in base64, as "{{ env.NAME }}"; Application Default Credentials else."""
    principal: Text | None = None
    """The IAM principal that subscribes, as serviceAccount:<email>: a run registers it with
    Octogen, which needs a login."""
    columns: list[str] | None = None
    """The columns of products to read; all by default. BigQuery bills for them."""
    where: str | None = None
    """The products to read: one expression in BigQuery's SQL."""
    min_rows_percent: Percent = 50
    """The smallest snapshot that replaces the last one, in percent of its rows."""
    min_covered_percent: Percent = 50
    """The least percent of the exported addresses that must be covered."""
    max_age: Duration | None = Field(default="2 days", validate_default=True)
    """The oldest export that passes the check `fresh`; null leaves it out."""
    listing_project: str = "octogen-catalog-exchange"
    """The project of the list's listing."""
    listing_location: str = "US"
    """The location of the list's listing."""
    dataset_id: str | None = None
    """The id of the linked dataset; by default octogen_<listing id>."""
    replace_revoked: bool = False
    """Delete a revoked subscription that holds the dataset id, with its dataset and the access
    rights set on it. By default such a run fails."""
    max_bytes_billed: int | None = Field(default=100_000_000_000, gt=0)
    """The most bytes that a query may be billed for; null for no limit."""
    translation: Translation = None
    """Changes of its assets, as in `translation` of an asset."""

    _check_credentials = field_validator("gcp_credentials")(check_not_written_out)

    @model_validator(mode="after")
    def _check(self) -> Self:
        extras = ["bigquery", *(["mcp"] if self.principal else [])]
        require_extras("coverage of url_lists", *extras)
        return self


class UrlListSettings(AssetSettings):
    """The settings of a URL list that is kept equal to an asset of the project."""

    name: Name
    """The asset's name."""
    urls: str
    """The key of the asset that has the addresses, with the columns url and sku."""
    list_name: str | None = Field(default=None, min_length=1, max_length=80)
    """The list's name at Octogen; by default the asset's."""
    max_removed_percent: Percent = 20
    """The most percent of the list that a run may remove."""
    coverage: Annotated[
        UrlCoverageSettings | None,
        text_for(UrlCoverageSettings | None, lambda text: {"project": text}),
    ] = None
    """What Octogen exports of the list, or the `project` alone: assets <name>_export,
    <name>_coverage, <name>_offers and <name>_matches."""

    @property
    def of_octogen(self) -> str:
        """The list's name at Octogen."""
        return self.name if self.list_name is None else self.list_name.strip()
