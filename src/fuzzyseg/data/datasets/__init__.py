"""Dataset layouts on disk, read into lists of items."""
