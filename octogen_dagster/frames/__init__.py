"""The tables that this package stores: their columns, checks and previews.

Independent of reading and Dagster.
"""
