"""Shared by all assets: the asset decorator, automation conditions and sensor ticks."""
