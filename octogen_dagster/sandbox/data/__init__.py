"""The catalogs and products that the sandbox serves."""
