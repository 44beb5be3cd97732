"""The asset decorator, automation conditions and sensor ticks, which all assets share."""
