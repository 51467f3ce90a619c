"""Speeds of the running service, as ratios to a peer in the same run. Nothing here is part of the service."""
