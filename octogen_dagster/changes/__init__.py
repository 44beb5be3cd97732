"""Product changes between two snapshots."""
