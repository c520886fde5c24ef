"""Public fakes: honest small implementations of the ports, for tests and benchmarks only."""
