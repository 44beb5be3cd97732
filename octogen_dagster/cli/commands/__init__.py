"""The subcommands of `octogen-dagster`. Each module has the same name as its subcommand."""
