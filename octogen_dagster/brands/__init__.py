"""Product counts and prices by brand."""
