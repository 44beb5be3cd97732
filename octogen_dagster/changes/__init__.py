"""What changed between two snapshots of products."""
