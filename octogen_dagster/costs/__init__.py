"""What catalogs cost at Octogen and Google, as the runs of Dagster reported it."""
