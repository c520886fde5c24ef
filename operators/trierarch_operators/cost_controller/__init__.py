"""Keeps the books of what groups cost, and tells each deployment its price."""
