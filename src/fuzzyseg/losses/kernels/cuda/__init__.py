"""What runs on the device, in Triton's language; `fuzzyseg.losses.kernels.cuda.launch` starts it."""
