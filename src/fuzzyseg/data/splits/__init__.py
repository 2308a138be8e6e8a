"""Labelled, unlabelled and validation images."""
