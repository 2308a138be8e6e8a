"""What mask values mean."""
