"""Fuzzy Positive Learning in its readable form."""
