"""The lookup of each product of a snapshot."""
