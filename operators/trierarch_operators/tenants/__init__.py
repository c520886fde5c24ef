"""Brings Tenants to where their limits and budgets hold, and tells what they have spent."""
