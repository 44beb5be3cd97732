"""Price positions: your prices compared with competitors' prices, from their history."""
