"""The price history report: an HTML page that works in any browser without a network connection."""
