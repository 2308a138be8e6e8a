"""Statistics of a network's fuzzy sets on images with masks. Numbers and maps; `report` draws them."""
