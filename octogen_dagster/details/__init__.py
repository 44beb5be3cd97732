"""Product details: look up the full view of each product in a snapshot."""
