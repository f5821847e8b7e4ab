"""Serve applications: one typed builder each, wiring only."""
