"""What accelerators and model architectures can do: memory, step times, layouts; pure."""
