"""Brands in a products snapshot, with product counts and prices."""
