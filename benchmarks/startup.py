"""Start-up time of the command line: python benchmarks/startup.py

Prints, for each command, the shortest of five runs in seconds beside its limit on a warm, idle machine.
"""

from __future__ import annotations

import subprocess
import sys
import time

LIMITS = {"--help": 1.0, "settings": 2.0, "methods": 2.0}


def main() -> None:
    """Measure and print."""
    for command, limit in LIMITS.items():
        times = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "fuzzyseg", command], check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - start)
        print(f"fuzzyseg {command:<10} {min(times):.2f} s (limit {limit:g} s)")


if __name__ == "__main__":
    main()
