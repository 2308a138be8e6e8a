"""Statistics of a network's fuzzy sets on images with masks, as numbers and maps; `report` draws them."""
