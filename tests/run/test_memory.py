"""Free memory within the limits of control groups."""

import pytest

from fuzzyseg.run.memory import free_bytes


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


MEMINFO = {"proc/meminfo": "MemTotal: 900 kB\nMemFree: 1 kB\nMemAvailable: 800 kB\n"}
V2 = {"proc/self/cgroup": "0::/jobs/one\n"}
V1 = {"proc/self/cgroup": "5:cpu:/\n4:memory:/jobs/one\n0::/\n"}


def v2(path, limit, used, cache):
    return {f"{path}/memory.max": f"{limit}\n", f"{path}/memory.current": f"{used}\n",
            f"{path}/memory.stat": f"anon 5\ninactive_file {cache}\n"}  # fmt: skip


def v1(path, limit, used, cache):
    return {f"{path}/memory.limit_in_bytes": f"{limit}\n", f"{path}/memory.usage_in_bytes": f"{used}\n",
            f"{path}/memory.stat": f"inactive_file 1\ntotal_inactive_file {cache}\n"}  # fmt: skip


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 800 * 1024),
        (V2 | v2("sys/fs/cgroup/jobs/one", 5000, 3000, 700), 2700),
        (V2 | v2("sys/fs/cgroup/jobs/one", "max", 3000, 700), 800 * 1024),
        (V2 | v2("sys/fs/cgroup/jobs/one", "max", 3000, 700) | v2("sys/fs/cgroup/jobs", 4000, 3900, 0), 100),
        (V2 | v2("sys/fs/cgroup", 5000, 3000, 0), 2000),  # a container: its own group is the root
        (V1 | v1("sys/fs/cgroup/memory/jobs/one", 5000, 3000, 700), 2700),
        (V1 | v1("sys/fs/cgroup/memory/jobs/one", 2**63 - 4096, 3000, 700), 800 * 1024),
        (V1 | v1("sys/fs/cgroup/memory", 5000, 4900, 0), 100),
    ],
)
def test_the_tightest_limit_counts(tmp_path, files, free):
    write(tmp_path, {"proc/self/cgroup": "0::/\n"} | MEMINFO | files)
    assert free_bytes(tmp_path) == free


def test_other_systems_do_not_say(tmp_path):
    assert free_bytes(tmp_path) is None
