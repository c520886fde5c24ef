"""Decides how many groups of which variant, and writes the decision into the status."""
