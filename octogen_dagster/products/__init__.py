"""The asset of products, its resource, its catalogs, and what requests it."""
