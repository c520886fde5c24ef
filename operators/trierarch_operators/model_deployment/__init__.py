"""Turns model deployments into RayServices and keeps them at the counts that were decided."""
