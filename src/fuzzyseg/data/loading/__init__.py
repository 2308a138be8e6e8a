"""Sampler, reader, caches and loader of batches."""
