"""One frozen settings model per process; nothing else reads the environment."""
