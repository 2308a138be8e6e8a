"""Read-only checks of dataset files."""
