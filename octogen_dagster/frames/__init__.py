"""Products as Polars frames: built on polars and `octogen_dagster.api`; knows no Dagster."""
