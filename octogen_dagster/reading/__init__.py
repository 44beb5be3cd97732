"""How a search is read: pages of the service become a frame of Polars. Knows no Dagster."""
