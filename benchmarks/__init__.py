"""Speed as ratios: the service beside its baselines, on one machine, in the same minutes."""
