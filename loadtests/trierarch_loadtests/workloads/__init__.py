"""What is asked: seeded, pure distributions of lengths and prompts."""
