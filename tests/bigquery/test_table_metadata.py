"""The table that an asset reported, and the facts of a table as metadata."""

from datetime import datetime, timezone
from typing import Any

import dagster as dg
import pytest
from google.cloud.bigquery import SchemaField

from octogen_dagster.bigquery.table_metadata import read_reported_table, table_metadata
from octogen_dagster.bigquery.tables import TableFacts, TableName

TABLE = TableName("my-project", "octogen_acme", "products_current_v1")
LISTINGS = dg.DynamicPartitionsDefinition(name="octogen_listings")


@dg.asset(partitions_def=LISTINGS)
def linked_datasets() -> None: ...


@dg.asset(partitions_def=LISTINGS, deps=[linked_datasets])
def reader(context: dg.AssetExecutionContext) -> None:
    context.add_output_metadata({"table": str(read_reported_table(context, linked_datasets.key))})


def read(instance: dg.DagsterInstance) -> str:
    """The table that the asset `reader` finds for the partition of acme."""
    result = dg.materialize(
        [linked_datasets, reader],
        selection=[reader],
        instance=instance,
        partition_key="p:us:x:acme",
    )
    (event,) = result.asset_materializations_for_node("reader")
    return str(event.metadata["table"].value)


def report(instance: dg.DagsterInstance, listing: str, metadata: dict[str, Any]) -> None:
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            linked_datasets.key, partition=f"p:us:x:{listing}", metadata=metadata
        )
    )


def test_the_table_is_that_of_the_last_materialization_of_the_partition(
    instance: dg.DagsterInstance,
) -> None:
    instance.add_dynamic_partitions("octogen_listings", ["p:us:x:acme", "p:us:x:other"])
    report(instance, "acme", {"dagster/table_name": "p.old.t"})
    report(instance, "acme", {"dagster/table_name": str(TABLE)})
    report(instance, "other", {"dagster/table_name": "p.other.t"})
    assert read(instance) == str(TABLE)


def test_a_listing_without_a_linked_dataset_is_an_error(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("octogen_listings", ["p:us:x:acme", "p:us:x:other"])

    def failure() -> str:
        with pytest.raises(dg.Failure) as caught:
            read(instance)
        assert caught.value.allow_retries is False
        return str(caught.value.description)

    subscribe_first = (
        "linked_datasets, partition 'p:us:x:acme': no linked dataset is known. Its last "
        "materialization says which one it is, as dagster/table_name, and there is {}. "
        "Materialize linked_datasets, partition 'p:us:x:acme' first."
    )
    report(instance, "other", {"dagster/table_name": str(TABLE)})
    assert failure() == subscribe_first.format("none")
    report(instance, "acme", {})
    assert failure() == subscribe_first.format("none that does")


@pytest.mark.parametrize(
    ("partitioned", "rows"), [(True, "partition_row_count"), (False, "row_count")]
)
def test_the_facts_of_a_table_become_metadata(partitioned: bool, rows: str) -> None:
    schema = (SchemaField("uuid", "STRING", description="The id."), SchemaField("n", "INTEGER"))
    facts = TableFacts("VIEW", "US", 25, datetime(2026, 1, 2, tzinfo=timezone.utc), schema)
    metadata = table_metadata(TABLE, facts, partitioned=partitioned)
    columns = metadata.pop("dagster/column_schema")
    assert metadata == {
        "dagster/table_name": str(TABLE),
        f"dagster/{rows}": 25,
        "octogen/table_type": "VIEW",
        "octogen/location": "US",
        "octogen/console": dg.MetadataValue.url(
            "https://console.cloud.google.com/bigquery?project=my-project&p=my-project"
            "&d=octogen_acme&t=products_current_v1&page=table"
        ),
    }
    assert isinstance(columns, dg.TableSchema)
    assert [(each.name, each.type, each.description) for each in columns.columns] == [
        ("uuid", "STRING", "The id."),
        ("n", "INT64", None),
    ]
