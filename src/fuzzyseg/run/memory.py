"""Available memory, within the limits of the process's control groups (cgroups)."""

from pathlib import Path

_NAMES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_bytes(root: Path = Path("/")) -> int | None:
    """Return how many bytes this process can allocate before it is killed, if known. root: parent of /proc and /sys."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except (OSError, StopIteration):
        return None
    for _, kinds, path in groups:
        if kinds in ("", "memory"):
            top = root / "sys/fs/cgroup" / kinds
            here = top / path.lstrip("/")
            for folder in (here, *here.parents):
                if folder.is_relative_to(top):
                    free = min(free, _left(folder) or free)
    return free


def _left(folder: Path) -> int | None:
    """Return the bytes left in a control group, including reclaimable file cache; None if it has no limit."""
    for limit_file, used, cache in _NAMES:
        try:
            limit, usage = (folder / limit_file).read_text().strip(), int((folder / used).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        return None if limit == "max" else max(1, int(limit) - usage + int(stat[cache]))
    return None
