"""Report: price history as a page that opens in any browser, without Dagster or a network."""
