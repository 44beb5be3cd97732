"""The history of products: a row for each time in which a product stayed the same."""
