"""The history of products: a row for each period in which a product stayed the same."""
