"""Names, spans and log lines: one place each, so that dashboards and code cannot drift apart."""
