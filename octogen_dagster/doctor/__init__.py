"""Says what works, what does not and what to do."""
