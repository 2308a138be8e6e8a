"""Geometry and photometry of samples."""
