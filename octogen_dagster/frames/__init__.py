"""Tables as Polars frames: columns, kinds and previews. Independent of reading and Dagster."""
