"""Own prices beside those of competitors' pages, from their histories."""
