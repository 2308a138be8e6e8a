"""Random transforms of samples: geometry, then photometry."""
