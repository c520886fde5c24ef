"""What vLLM's CPU build lacks for expert parallelism, as a vLLM plugin."""
