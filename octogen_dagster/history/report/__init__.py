"""Report: the history of prices as a page that anybody opens, without Dagster and a network."""
