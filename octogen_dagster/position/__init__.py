"""Price positions: your prices compared with competitors' prices from product histories."""
