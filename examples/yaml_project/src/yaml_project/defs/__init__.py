"""Each folder here has the YAML file of a component."""
