"""Machine checks: memory, disk, shared memory, ports."""

import contextlib
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from speciarl.doctor.finding import Finding, Level, ok, problem, warning

GIB = 2**30
SHARED_MEMORY = Path("/dev/shm")
RAY_DASHBOARD_PORT = 8265


def cores() -> Finding:
    """At least two cores, those this process may use."""
    count = len(os.sched_getaffinity(0))
    if count >= 2:
        return ok("cores", str(count))
    return warning("cores", "1", "Runs work, but rollouts, judge and trainer take turns. Use two cores or more.")


def memory(total: int | None = None, available: int | None = None) -> Finding:
    """Bytes of main memory: the laptop run peaks at about 11 GiB."""
    now = psutil.virtual_memory()
    total, available = total or now.total, available or now.available
    detail = f"{available / GIB:.1f} of {total / GIB:.1f} GiB available"
    if total < 8 * GIB:
        return problem("memory", detail, "The smallest run (laptop) needs about 11 GiB.")
    if available < 11 * GIB:
        return warning("memory", detail, "The laptop run needs about 11 GiB: close other programs.")
    return ok("memory", detail)


def disk() -> Iterator[Finding]:
    """Space for checkpoints where we are, and for Ray's sessions in the temporary directory."""
    for name, path, wanted in (("disk here", Path.cwd(), 5), ("disk for Ray", Path(tempfile.gettempdir()), 2)):
        free = shutil.disk_usage(path).free / GIB
        detail = f"{free:.1f} GiB free in {path}"
        if free < wanted:
            yield warning(name, detail, f"Free {wanted} GiB, or work from another directory.")
        else:
            yield ok(name, detail)


def shared_memory(directory: Path = SHARED_MEMORY) -> Iterator[Finding]:
    """Room for Ray's object store and the weight sync, and no segments left by crashed runs."""
    if not directory.is_dir():
        yield warning("shared memory", f"{directory} does not exist", "Ray will use slower files in /tmp.")
        return
    usage = shutil.disk_usage(directory)
    detail = f"{usage.free / GIB:.1f} of {usage.total / GIB:.1f} GiB free in {directory}"
    if usage.free < GIB:
        remedy = "Weights and Ray's objects pass through it: 1 GiB at least (containers: docker run --shm-size=8g)."
        yield problem("shared memory", detail, remedy)
    else:
        yield ok("shared memory", detail)
    # Names that Python's multiprocessing gives; vLLM and veRL's weight sync use it. Ours only, and in use by nobody.
    ours = [path for path in directory.glob("psm_*") if path.stat().st_uid == os.getuid()]
    in_use = _in_use(directory) if ours else set()
    leftovers = [path for path in ours if path.name not in in_use]
    if leftovers:
        size = sum(path.stat().st_size for path in leftovers) / GIB
        yield warning(
            "leftovers",
            f"{len(leftovers)} segments ({size:.2f} GiB) of crashed runs in {directory}",
            "rm " + " ".join(str(path) for path in leftovers[:20]),
        )


def ports() -> Iterator[Finding]:
    """Loopback sockets can be opened, and no foreign Ray cluster is picked up by mistake."""
    try:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
    except OSError as error:
        remedy = "Allow loopback sockets; Ray and vLLM talk by them."
        yield problem("ports", f"no free port on 127.0.0.1: {error}", remedy)
        return
    with socket.socket() as probe:
        busy = probe.connect_ex(("127.0.0.1", RAY_DASHBOARD_PORT)) == 0
    address = os.environ.get("RAY_ADDRESS", "")
    if address:
        remedy = "unset RAY_ADDRESS to start one here."
        yield warning("ports", f"RAY_ADDRESS={address}: runs will join that cluster", remedy)
    elif busy:
        detail = f"free ports; port {RAY_DASHBOARD_PORT} is taken, probably by another Ray on this machine"
        yield Finding("ports", Level.OK, detail)
    else:
        yield ok("ports", "free ports on 127.0.0.1")


def open_files() -> Finding:
    """Ray opens many files and sockets in one process."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= 4096:
        return ok("open files", f"limit {soft}")
    return warning("open files", f"limit {soft}", f"ulimit -n {min(65536, hard) if hard > 0 else 65536}")


def _in_use(directory: Path) -> set[str]:
    """Names of the files in ``directory`` that a process which we may look into has mapped."""
    pattern = re.compile(rf"{re.escape(str(directory))}/(\S+)")
    names: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):  # the process has ended, or is not ours
            names.update(pattern.findall(maps.read_text(errors="replace")))
    return names
