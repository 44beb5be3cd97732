"""Products assets, the Octogen resource, the catalogs asset, the sensor and the schedule."""
