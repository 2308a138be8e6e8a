"""Declaration, detection and resolution of label maps, and their application to masks."""
