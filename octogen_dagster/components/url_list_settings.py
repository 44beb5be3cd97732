"""URL-list settings in YAML: the table to synchronize and the export to read."""

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
    """Settings for a URL list's export."""

    project: Text
    """Your Google Cloud project, which is billed for queries."""
    gcp_credentials: Text | None = None
    """Service account key in base64, as `"{{ env.NAME }}"`; by default Application Default
    Credentials."""
    principal: Text | None = None
    """IAM principal that subscribes, as `serviceAccount:<email>`.

    A run registers the principal with Octogen, which requires a login to Octogen's MCP.
    """
    columns: list[str] | None = None
    """Product columns to read. Defaults to all. BigQuery bills by column."""
    where: str | None = None
    """Products to read, as an SQL expression for BigQuery."""
    min_rows_percent: Percent = 50
    """Minimum snapshot size, in percent of the previous snapshot's rows."""
    min_covered_percent: Percent = 50
    """Minimum percentage of URLs in the export that Octogen covers."""
    max_age: Duration | None = Field(default="2 days", validate_default=True)
    """Maximum export age for the check `fresh`; `null` omits the check."""
    listing_project: str = "octogen-catalog-exchange"
    """The listing's Google Cloud project."""
    listing_location: str = "US"
    """The listing's location."""
    dataset_id: str | None = None
    """The linked dataset's ID; by default `octogen_<listing id>`."""
    max_bytes_billed: int | None = Field(default=100_000_000_000, gt=0)
    """Maximum bytes billed for a query; `null` removes the limit."""
    translation: Translation = None
    """Changes applied to the assets built from the export, such as owners or tags."""

    _check_credentials = field_validator("gcp_credentials")(check_not_written_out)

    @model_validator(mode="after")
    def _check(self) -> Self:
        extras = ["bigquery", *(["mcp"] if self.principal else [])]
        require_extras("coverage of url_lists", *extras)
        return self


class UrlListSettings(AssetSettings):
    """Settings for a URL list that is synchronized with an asset in the project."""

    name: Name
    """The asset's name."""
    urls: str
    """Key of the asset that contains the URLs, in the columns `url` and `sku`."""
    list_name: str | None = Field(default=None, min_length=1, max_length=80)
    """The name under which Octogen stores the list; by default the asset's name."""
    max_removed_percent: Percent = 20
    """Maximum percentage of the list's URLs that a run can remove."""
    coverage: Annotated[
        UrlCoverageSettings | None,
        text_for(UrlCoverageSettings | None, lambda text: {"project": text}),
    ] = None
    """Octogen's export of the list, or just your `project`. Adds the assets `<name>_export`,
    `<name>_coverage`, `<name>_offers` and `<name>_matches`."""

    @property
    def of_octogen(self) -> str:
        """Return the name under which Octogen stores the list."""
        return self.name if self.list_name is None else self.list_name.strip()
