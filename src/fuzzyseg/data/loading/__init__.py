"""Loading of batches: sampler, reader, cache, workers, loader."""
