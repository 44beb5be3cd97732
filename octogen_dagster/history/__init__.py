"""Product histories. Each row contains a product's values for a period without changes."""
