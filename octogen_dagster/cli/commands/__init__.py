"""The `octogen-dagster` subcommands, each in the module with its name."""
