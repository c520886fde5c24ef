"""A fleet in virtual time: what exists, what it costs, what a policy sees and does."""
