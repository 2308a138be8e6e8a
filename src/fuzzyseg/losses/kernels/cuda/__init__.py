"""Triton kernels of the losses; `fuzzyseg.losses.kernels.cuda.launch` launches them."""
