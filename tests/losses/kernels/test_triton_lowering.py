"""Every kernel in Triton, as it is launched, compiles to machine code of a GPU: no GPU is needed for that.

This file also is the script that does it, in a process of its own: in Triton's interpreter nothing can be compiled.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

MISSING = 77
"""What the script exits with where the toolchain is missing."""


def test_kernels_compile_for_sm_90_as_they_are_launched() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run([sys.executable, __file__], capture_output=True, text=True, env=environment, timeout=400)
    if run.returncode == MISSING:
        pytest.skip(f"compiling for a GPU: {run.stdout.strip()}")
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    for kernel in ("forward", "finish", "backward", "lower", "scale"):
        assert f"{kernel}_kernel" in run.stdout


def main() -> None:
    """Compiles all that a few calls would launch, and prints it."""
    try:
        import torch
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        from fuzzyseg.losses.kernels.cuda import launch as form
    except ImportError as error:
        print(error)
        sys.exit(MISSING)
    from fuzzyseg.losses.fpl.options import FPLOptions
    from fuzzyseg.losses.kernels.chunked import LossInputs

    pointers = {
        torch.float32: "*fp32",
        torch.float16: "*fp16",
        torch.bfloat16: "*bf16",
        torch.float64: "*fp64",
        torch.int64: "*i64",
        torch.int32: "*i32",
        torch.int16: "*i16",
        torch.uint8: "*u8",
    }

    class Compiler:
        """Stands in for a kernel: what is launched is compiled instead."""

        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: Any) -> Any:
            return self.compile

        def compile(self, *arguments: Any, num_warps: int, **constants: Any) -> None:
            signature, aligned = {}, {}
            for place, (name, value) in enumerate(zip(self.kernel.arg_names, arguments, strict=False)):
                tensor = isinstance(value, torch.Tensor)
                if tensor or (isinstance(value, int) and value % 16 == 0):
                    aligned[(place,)] = [["tt.divisibility", 16]]
                if isinstance(value, int) and value == 1:
                    constants[name] = 1
                elif tensor:
                    signature[name] = pointers[value.dtype]
                else:
                    signature[name] = "i32" if isinstance(value, int) else "fp32"
            types = {name: signature.get(name, "constexpr") for name in self.kernel.arg_names}
            source = ASTSource(self.kernel, types, constants, aligned)
            result = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": num_warps})
            assert ".target sm_90" in result.asm["ptx"]
            assert len(result.asm["cubin"]) > 0
            assert "local_depot" not in result.asm["ptx"]  # nothing but registers
            print(self.kernel.__name__, len(result.asm["cubin"]))

    names = ("scale_kernel", "forward_kernel", "finish_kernel", "backward_kernel", "lower_kernel")
    for name in names:
        setattr(form, name, Compiler(getattr(form, name)))
    try:  # the simplest of all: if it fails, so does the toolchain
        form.multiply(torch.zeros(64), torch.ones(()))
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
        sys.exit(MISSING)

    def call(classes: int = 21, size: tuple[int, int] = (16, 16), dtype: torch.dtype = torch.float32, **changes: Any):
        z = torch.zeros(2, classes, 16, 16, dtype=dtype)
        if changes.pop("last", False):
            z = z.to(memory_format=torch.channels_last)
        mask = torch.ones(2, *size, dtype=torch.bool)
        fields: dict[str, Any] = {
            "other": None,
            "mask": None,
            "valid": mask,
            "threshold": torch.tensor(0.9),
            "mean": False,
            "gradient": True,
            "statistics": True,
            "maps": False,
            "cross_entropy": False,
        }
        fields.update(changes)
        kind, rule = fields.pop("kind", "fuzzy"), fields.pop("rule", "n-1")
        if fields.pop("mixed", False):
            fields.update(other=z, mask=mask)
        options = FPLOptions(fields.pop("weight", "concave"), 50.0, classes - 1, rule, "paper")
        hard = kind == "hard"
        inputs = LossInputs(
            student=z, teacher=z, size=size, align_corners=True, options=None if hard else options, **fields
        )
        outputs = form.run(inputs)
        if outputs.state.numel():
            form.backward(inputs, outputs.state, torch.ones(()) if inputs.mean else torch.zeros(2, *size))

    call(mean=True)
    call(rule="continuous", maps=True, cross_entropy=True, threshold=torch.zeros(2, 16, 16))
    call(rule="continuous", mean=True, valid=None, weight="convex")
    call(mixed=True, rule="n", dtype=torch.bfloat16, weight="linear", valid=torch.ones(2, 16, 16))
    call(mixed=True, size=(64, 64), rule=2, dtype=torch.float16)
    call(size=(64, 64), rule="continuous", mean=True)
    call(classes=150, kind="hard")
    call(classes=150, last=True, valid=torch.ones(2, 16, 16, dtype=torch.float64))
    call(last=True, mean=True, threshold=torch.tensor(0.9))
    call(last=True, size=(64, 64))


if __name__ == "__main__":
    main()
