"""Definitions, a module for each subject."""
