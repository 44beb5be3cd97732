"""The project's definitions, with one module per topic."""
