"""What a table is, as a frame of Polars. Knows neither how it is read nor Dagster."""
