"""URL-list settings in YAML: the table to synchronize, and the export to read."""

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
    """Base64-encoded service account key, as `"{{ env.NAME }}"`. Defaults to Application Default
    Credentials."""
    principal: Text | None = None
    """IAM principal that subscribes to the export, such as `serviceAccount:<email>`.

    If `principal` is set, runs register the principal with Octogen. This requires a login to
    Octogen's MCP server.
    """
    columns: list[str] | None = None
    """Product columns to read. Defaults to all columns. BigQuery bills only for the columns that
    are read."""
    where: str | None = None
    """Condition that selects the products to read, as a BigQuery SQL expression."""
    min_rows_percent: Percent = 50
    """Minimum number of rows in a snapshot, as a percentage of the previous snapshot's row count.
    """
    min_covered_percent: Percent = 50
    """Minimum percentage of URLs in the export that Octogen covers."""
    max_age: Duration | None = Field(default="2 days", validate_default=True)
    """Maximum age of the export for the `fresh` check. `null` omits the check."""
    listing_project: str = "octogen-catalog-exchange"
    """The listing's Google Cloud project."""
    listing_location: str = "US"
    """The listing's location."""
    dataset_id: str | None = None
    """The linked dataset's id. Defaults to `octogen_<listing id>`."""
    max_bytes_billed: int | None = Field(default=100_000_000_000, gt=0)
    """Maximum bytes billed for a query. `null` removes the limit."""
    translation: Translation = None
    """Changes to the specs of the assets that are built from the export, such as owners or tags."""

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
    """The name under which Octogen stores the list. Defaults to the asset's name."""
    max_removed_percent: Percent = 20
    """Maximum percentage of the list's URLs that a run can remove."""
    coverage: Annotated[
        UrlCoverageSettings | None,
        text_for(UrlCoverageSettings | None, lambda text: {"project": text}),
    ] = None
    """Settings for Octogen's export of the list: a mapping, or a string for `project`. Adds the
    assets `<name>_export`, `<name>_coverage`, `<name>_offers` and `<name>_matches`."""

    @property
    def of_octogen(self) -> str:
        """Return the name under which Octogen stores the list."""
        return self.name if self.list_name is None else self.list_name.strip()
