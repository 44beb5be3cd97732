"""Coverage URL lists as assets: own tables of addresses, and which of them Octogen covers."""
