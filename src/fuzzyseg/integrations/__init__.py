"""Functions that annotation tools load."""
