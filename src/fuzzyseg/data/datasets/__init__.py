"""Dataset layouts on disk, and readers that list their items."""
