"""The commands of `octogen-dagster`: a module holds the command of its name."""
