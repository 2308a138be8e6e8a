"""Reference implementation of Fuzzy Positive Learning."""
