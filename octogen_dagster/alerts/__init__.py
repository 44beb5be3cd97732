"""The events of a history that somebody wants to be told."""
