"""Verify: the beliefs about the service that the package rests on, asked of a user's own key."""
