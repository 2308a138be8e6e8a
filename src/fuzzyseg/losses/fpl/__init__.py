"""Readable form of Fuzzy Positive Learning."""
