"""The only modules that talk to the outside: databases, files, clusters, engines."""
