"""What runs on the device, in Triton's language; `fuzzyseg.losses.kernels.triton` starts it."""
