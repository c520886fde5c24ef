"""Names by which others find what this package deploys; importable without Ray."""

DEPLOYMENT_NAME = "replica"
"""Of the one deployment in every application."""
