"""A Dagster project that finds price drops in product catalogs."""
