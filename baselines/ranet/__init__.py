"""Resolution-adaptive networks."""
