"""Splitting datasets into labelled, unlabelled, validation and test images."""
