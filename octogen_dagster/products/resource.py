"""OctogenResource: a Dagster resource with blocking methods for Octogen's REST API."""

import functools
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, Self, TypeVar

import dagster as dg
from pydantic import (
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from typing_extensions import ParamSpec

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.catalog_sources import (
    MAX_EXTRA_PAGES_PERCENT,
    CatalogService,
    CatalogSource,
    GrantedCatalogs,
)
from octogen_dagster.api.client import OctogenClient
from octogen_dagster.api.credentials import (
    ApiKey,
    checked_base_url,
    checked_host,
    configured_base_url,
    key_mask,
    warn_of_written_key,
)
from octogen_dagster.api.models import MerchantCatalogSummary
from octogen_dagster.api.pacing import RateLimiter
from octogen_dagster.api.retry import RetryPolicy
from octogen_dagster.api.search import (
    ProductSearch,
    checked_search,
)
from octogen_dagster.api.service import DEFAULT_TIMEOUT
from octogen_dagster.api.spending import LOOKUP_USD, SEARCH_PAGE_USD, Prices, Spending
from octogen_dagster.assets.settings import NamedSettings
from octogen_dagster.errors import dagster_private
from octogen_dagster.validation import require_percent

if TYPE_CHECKING:
    from octogen_dagster.frames.source import TimeWindow
    from octogen_dagster.reading.scan import ProductScan
    from octogen_dagster.reading.statistics import ScanStatistics

_LOGGER = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


def _blocking(
    operation: Callable[Concatenate[OctogenClient, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["_Operations", P], T]:
    """Convert an asynchronous client method to a blocking method."""

    @functools.wraps(operation)
    def call(self: "_Operations", /, *args: P.args, **kwargs: P.kwargs) -> T:
        with BlockingClient(self.service()) as client:
            answer: T = getattr(client, operation.__name__)(*args, **kwargs)
            return answer

    return call


class _Operations:
    """Blocking versions of the `OctogenClient` methods. Each call opens a separate client."""

    def service(self) -> CatalogService:
        raise NotImplementedError

    search_products = _blocking(OctogenClient.search_products)
    lookup_product = _blocking(OctogenClient.lookup_product)
    create_coverage_url_list = _blocking(OctogenClient.create_coverage_url_list)
    list_coverage_url_lists = _blocking(OctogenClient.list_coverage_url_lists)
    get_coverage_url_list = _blocking(OctogenClient.get_coverage_url_list)
    delete_coverage_url_list = _blocking(OctogenClient.delete_coverage_url_list)
    add_coverage_url_list_urls = _blocking(OctogenClient.add_coverage_url_list_urls)
    remove_coverage_url_list_urls = _blocking(OctogenClient.remove_coverage_url_list_urls)
    check_coverage_url_list_urls = _blocking(OctogenClient.check_coverage_url_list_urls)
    list_coverage_url_list_urls = _blocking(OctogenClient.list_coverage_url_list_urls)


class OctogenResource(NamedSettings, dg.ConfigurableResource[Any], _Operations):
    """Octogen's REST API as a Dagster resource.

    Definitions load without an API key; runs that need one raise MissingAPIKeyError.

    `catalog_source` defines which catalogs the catalogs asset lists, the catalog sensor watches and
    a search without `catalogs` reads: `ShopCatalogs(hosts=[...])`, `NamedCatalogs(keys=[...])`,
    `GrantedCatalogs()` or your own `CatalogSource`. Set it in code; it is not part of the run
    configuration. Definitions with catalog partitions do not load without a catalog source.
    """

    api_key: str | None = Field(
        default=None,
        repr=False,
        description="API key. Pass it as a dagster.EnvVar, because Dagster shows literal keys in "
        "its UI. Defaults to STOREROUTER_API_KEY, then OCTOGEN_PLATFORM_API_KEY, then "
        "OCTO_API_KEY, in the process that runs the step.",
    )
    host: str | None = Field(
        default=None,
        description="API host, such as storerouter.ai. Requests are sent to api.<host>. Defaults "
        "to OCTOGEN_HOST in the process that runs the step, then octogen.ai.",
    )
    base_url: str | None = Field(
        default=None,
        description="API base URL. It must use https, except for a server on this machine. "
        "Defaults to OCTOGEN_BASE_URL in the process that runs the step, then the host's URL.",
    )
    timeout: float = Field(
        default=DEFAULT_TIMEOUT,
        gt=0,
        description="Timeout for one request attempt, in seconds.",
    )
    concurrency: int = Field(
        default=8,
        ge=1,
        description="Number of catalogs, or parts of a large catalog, to read concurrently. Also "
        "the number of products to look up concurrently.",
    )
    attempts: int = Field(
        default=6, ge=1, description="Maximum attempts per request, including the first."
    )
    deadline: float = Field(
        default=300.0, gt=0, description="Time limit for a request with all retries, in seconds."
    )
    reserved_percent: float = Field(
        default=20,
        ge=0,
        lt=100,
        description="Percentage of the organization's rate limit that bulk reads leave for other "
        "clients.",
    )
    search_page_usd: float = Field(
        default=SEARCH_PAGE_USD,
        ge=0,
        allow_inf_nan=False,
        description="Price per search page in US dollars. If 0, costs are not shown.",
    )
    lookup_usd: float = Field(
        default=LOOKUP_USD,
        ge=0,
        allow_inf_nan=False,
        description="Price per lookup in US dollars. If 0, costs are not shown.",
    )
    budget_usd: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Spending limit for a run, in US dollars. Defaults to no limit. A run fails "
        "before a request that would exceed the limit. A later run with a higher limit resumes "
        "from the saved pages. Requests without a response also count, because Octogen might "
        "charge for such requests. Snapshot steps in separate processes share the limit through "
        "the run tags octogen/spent_usd.<step> and octogen/possibly_charged_usd.<step>. "
        "Re-executions inherit these tags. For all other requests, each process has its own limit.",
    )
    max_extra_pages_percent: float = Field(
        default=MAX_EXTRA_PAGES_PERCENT,
        ge=0,
        le=100,
        description="Reading a large catalog in parallel parts requests additional pages. This "
        "setting limits them, as a percentage of the catalog's pages. 0 disables parallel parts.",
    )
    _spending: Spending = PrivateAttr()

    # Dagster treats a value that is not configuration as a resource dependency.
    catalog_source: dg.ResourceDependency[CatalogSource] = GrantedCatalogs()  # type: ignore[assignment]

    @field_validator("api_key", mode="before")
    @classmethod
    def _check_api_key(cls, api_key: object) -> object:
        if isinstance(api_key, str) and not isinstance(api_key, dg.EnvVar):
            warn_of_written_key(api_key)
        return api_key

    @field_validator("catalog_source", mode="before")
    @classmethod
    def _check_catalog_source(cls, source: object) -> object:
        if not isinstance(source, CatalogSource):
            raise ValueError(
                "catalog_source must be a CatalogSource, such as "
                f"ShopCatalogs(hosts=['shop.example']), not {type(source).__name__}"
            )
        return source

    @classmethod
    def _is_cm_resource_cls(cls) -> bool:
        """Return False, so that Dagster does not require a `with` statement for this resource."""
        return False

    @field_validator("reserved_percent", "max_extra_pages_percent")
    @classmethod
    def _check_percent(cls, percent: float, info: ValidationInfo) -> float:
        require_percent(str(info.field_name), percent)
        return percent

    @field_validator("host", mode="before")
    @classmethod
    def _check_host(cls, host: object) -> object:
        if not isinstance(host, str) or isinstance(host, dg.EnvVar):
            return host
        return checked_host(host, "host")

    @field_validator("base_url", mode="before")
    @classmethod
    def _check_base_url(cls, base_url: object, info: ValidationInfo) -> object:
        if not isinstance(base_url, str) or isinstance(base_url, dg.EnvVar):
            return base_url
        api_key = info.data.get("api_key")
        literal = None if isinstance(api_key, dg.EnvVar) else api_key
        return checked_base_url(base_url, key_mask(literal))

    @model_validator(mode="after")
    def _begin_spending(self) -> Self:
        prices = Prices(self.search_page_usd, self.lookup_usd)
        self._spending = Spending(prices, self.budget_usd)
        return self

    def __reduce__(self) -> Any:
        """Pickle the resource without the API key. The copy reads the key from the environment."""
        settings = self.model_dump(exclude={"api_key", "catalog_source"})
        return functools.partial(type(self), **settings, catalog_source=self.catalog_source), ()

    def service(self) -> CatalogService:
        """Return the service for these settings.

        Raises:
            MissingAPIKeyError: No API key is set.
            ValueError: A setting is out of range.
        """
        return CatalogService(
            api_key=ApiKey(self.api_key),
            base_url=self.base_url or configured_base_url(self.host),
            timeout=self.timeout,
            concurrency=self.concurrency,
            retry=RetryPolicy(attempts=self.attempts, deadline=self.deadline),
            limiter=RateLimiter(self.reserved_percent),
            spending=self.spending,
            catalog_source=self.catalog_source,
            max_extra_pages_percent=self.max_extra_pages_percent,
        )

    @property
    def spending(self) -> Spending:
        """The budget, and the costs of this resource's requests in this process."""
        return self._spending

    def client(self) -> OctogenClient:
        """Return an asynchronous client for use with `async with octogen.client() as client`.

        Raises:
            MissingAPIKeyError: No API key is set.
        """
        return OctogenClient(_service=self.service())

    def list_catalogs(self) -> list[MerchantCatalogSummary]:
        """List the catalogs in `catalog_source`.

        Fields that the source does not provide are None. If a part of the source cannot be read,
        such as one of several shops, this module's logger emits a warning.

        Raises:
            MissingAPIKeyError: No API key is set.
            OctogenError: No catalog could be listed.
        """
        listed = self.service().fetch_catalogs()
        for line in listed.warnings:
            _LOGGER.warning(line)
        names = MerchantCatalogSummary.model_fields
        return [
            MerchantCatalogSummary(**{name: getattr(state, name) for name in names})
            for state in listed.catalogs
        ]

    def listed_product_counts(self) -> dict[str, int | None] | None:
        """Return each catalog's product count. If some catalogs could not be listed, return None.

        Raises:
            MissingAPIKeyError: No API key is set.
            OctogenError: No catalog could be listed.
        """
        listed = self.service().fetch_catalogs()
        if listed.failure is not None:
            return None
        return {state.catalog: state.product_count for state in listed.catalogs}

    def scan(
        self,
        search: ProductSearch,
        report: "Callable[[ScanStatistics], None] | None" = None,
        *,
        window: "TimeWindow | None" = None,
        min_rows_percent: float = 50,
    ) -> "ProductScan":
        """Return a scan. Executing the scan's frame reads all pages of a search.

        Return the scan from an asset whose IO manager is `ParquetSnapshotIOManager`. For other IO
        managers and your own queries, use the scan's `frame`, a LazyFrame.

        Args:
            search: The search to read.
            report: Called with the read's statistics roughly every ten seconds, and once after the
                read.
            window: Start and end of the snapshot's time partition, such as
                `context.partition_time_window`. The read is rejected if the window does not
                include the present.
            min_rows_percent: The minimum size for a snapshot of whole catalogs that
                `ParquetSnapshotIOManager` publishes, as a percentage of the previous snapshot's row
                count. 0 disables the limit and also publishes empty snapshots.

        Raises:
            MissingAPIKeyError: No API key is set. Raised before the frame is executed.
        """
        from octogen_dagster.reading.scan import ProductScan  # imports Polars

        return ProductScan(
            checked_search(search),
            self.service(),
            report,
            window=window,
            min_rows_percent=min_rows_percent,
        )


@dataclass(frozen=True)
class _CatalogSourceRequirement:
    """The requirement that an asset's `OctogenResource` has a catalog source."""

    asset: str
    resource_key: str
    expected_type: type = dg.ResourceDefinition
    is_io_manager_requirement: bool = False

    def is_satisfied(self, resource_defs: Mapping[str, Any]) -> bool:
        resource: Any = resource_defs.get(self.resource_key)
        kind = getattr(resource, "configurable_resource_cls", object)
        is_ours = issubclass(kind, OctogenResource)
        return not is_ours or "catalog_source" in resource.nested_resources

    def ensure_satisfied(self, resource_defs: Mapping[str, Any]) -> None:
        if not self.is_satisfied(resource_defs):
            raise dg.DagsterInvalidDefinitionError(
                f"Asset {self.asset!r} needs a list of catalogs, but the resource "
                f"{self.resource_key!r} has no catalog source. Pass "
                "OctogenResource(catalog_source=ShopCatalogs(hosts=[...])), or in YAML "
                "`catalog_source: {hosts: [...]}`. GrantedCatalogs() works only with services that "
                "implement the older API contract."
            )


def require_catalog_source(asset: dg.AssetsDefinition, resource_key: str) -> None:
    """Reject definitions in which the asset's `OctogenResource` has no catalog source."""
    op: Any = asset.node_def
    requirements = dagster_private(op, "get_resource_requirements")
    catalog_source = _CatalogSourceRequirement(asset.key.to_user_string(), resource_key)

    def with_catalog_source(*args: Any, **kwargs: Any) -> Iterator[Any]:
        yield from requirements(*args, **kwargs)
        yield catalog_source

    op.get_resource_requirements = with_catalog_source
