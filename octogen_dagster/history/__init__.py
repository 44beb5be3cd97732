"""Product histories. A row covers a period in which a product's values stayed the same."""
