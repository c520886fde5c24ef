"""Scaling policies: each turns an observation into a recommendation and knows no other."""
