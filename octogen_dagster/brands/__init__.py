"""The brands of a snapshot of products, with their prices."""
