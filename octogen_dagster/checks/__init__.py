"""The checks of stored tables: of columns of products, and those that a kind brings."""
