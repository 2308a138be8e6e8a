"""Readers and writers of image and mask files."""
