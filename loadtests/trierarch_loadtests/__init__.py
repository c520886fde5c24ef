"""Black-box load tests for any OpenAI-compatible endpoint."""
