"""Compares the simulator's service model with a real engine."""
