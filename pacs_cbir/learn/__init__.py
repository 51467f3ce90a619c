"""Simulation and training."""
