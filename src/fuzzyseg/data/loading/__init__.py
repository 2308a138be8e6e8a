"""Sampler, reader, cache, workers and loader of batches."""
