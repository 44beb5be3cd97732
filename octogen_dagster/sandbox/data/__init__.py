"""The catalogs and products of the sandbox."""
