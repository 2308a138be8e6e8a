"""Statistics of a network's fuzzy sets on labelled images, as numbers and maps. `report` plots them."""
