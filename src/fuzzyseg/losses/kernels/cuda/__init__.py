"""Triton kernels of the losses, launched by `fuzzyseg.losses.kernels.cuda.launch`."""
