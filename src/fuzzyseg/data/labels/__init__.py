"""Label maps (declaration, detection, resolution) and their application to masks."""
