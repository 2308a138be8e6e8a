"""Fast implementations ("forms") of the losses `fuzzy` and `hard`.

| form | when used | file |
| --- | --- | --- |
| `reference` | on other devices, and for mixed precisions | `fpl/reference.py`, `pseudo_label.py` |
| `chunked` | on CPU and CUDA | `chunked.py` |
| `triton` | on request, on CUDA, or on the CPU with TRITON_INTERPRET=1 | `cuda/launch.py` |

The environment variable FUZZYSEG_KERNEL requests a form, which is used wherever it is supported. All forms agree up to
rounding; the tests compare them with `reference`.

A form is a function `run(inputs: LossInputs) -> LossOutputs` (`chunked.py`), called without a graph and without
autocast. `cuda/launch.py` has a backward kernel and therefore also provides `empty_outputs(inputs)`, which returns
outputs of the same shapes for torch.compile, and `backward(inputs, state, upstream)`, which returns the gradient of the
student's logits.
"""
