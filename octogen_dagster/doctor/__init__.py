"""Checks the setup and suggests fixes."""
