"""What every asset of Dagster here has: its definition, what requests it, and ticks of sensors."""
