"""Label maps: declared, detected, resolved, and applied to masks."""
