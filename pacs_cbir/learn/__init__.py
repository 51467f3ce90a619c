"""Door 4: simulation and training."""
