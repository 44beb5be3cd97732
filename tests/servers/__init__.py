"""Servers that share no code with the package."""
