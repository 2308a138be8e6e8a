"""Splits into labelled, unlabelled, validation and test images."""
