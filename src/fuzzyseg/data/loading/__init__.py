"""Sampler, image reader, caches and batch loader."""
