"""Random geometric and photometric transforms of samples."""
