"""Checks of the machine: cores, priority, what killed nodes left in shared memory."""

from __future__ import annotations

import getpass
import os
import re
from pathlib import Path

from vla_ros.commands.doctor.finding import Check, Finding
from vla_ros.commands.doctor.probe import ask

SHARED_MEMORY = Path("/dev/shm")
PROC = Path("/proc")
NICENESS = -10  # What our nodes ask for.

_LEFT_BY_FAST_DDS = re.compile(r"(sem\.)?(fastrtps|fastdds|fast_datasharing)_")
_MAPPED = re.compile(r"/dev/shm/(\S+)$", re.MULTILINE)


def check_cores() -> Finding:
    """How many cores this process may use."""
    cores = len(os.sched_getaffinity(0))
    if cores >= 2:
        return Finding("cores", "ok", f"{cores} cores")
    detail = "1 core; motion and rendering share it and ticks will be late"
    return Finding("cores", "optional", detail, "give the machine or container two cores")


def check_priority() -> Finding:
    """Whether nodes may put themselves before other processes."""
    if ask(f"import os; os.setpriority(os.PRIO_PROCESS, 0, {NICENESS})").is_ok:
        return Finding("priority", "ok", f"nice may be lowered to {NICENESS}")
    rule = f"{getpass.getuser()} - nice {NICENESS}"
    mend = f"echo '{rule}' | sudo tee /etc/security/limits.d/vla_ros.conf; then log in again"
    return Finding("priority", "optional", f"nice may not be lowered to {NICENESS}: ticks may be late", mend)


def check_leftovers() -> Finding:
    """What killed ROS processes left in shared memory."""
    if not SHARED_MEMORY.is_dir():
        return Finding("leftovers", "ok", f"no {SHARED_MEMORY}")
    segments = {path.name for path in SHARED_MEMORY.iterdir() if _LEFT_BY_FAST_DDS.match(path.name)}
    unused = segments - _mapped_segments()
    if not unused:
        return Finding("leftovers", "ok", f"no unused segment of Fast DDS in {SHARED_MEMORY}, {len(segments)} in use")
    mend = f"when no ROS program runs: rm -f {SHARED_MEMORY}/{{,sem.}}fast{{rtps,dds,_datasharing}}_*"
    return Finding("leftovers", "optional", f"{len(unused)} segments of Fast DDS that no process uses", mend)


def _mapped_segments() -> set[str]:
    """Names in /dev/shm that a process which we may look at has mapped or open."""
    names: set[str] = set()
    for process in PROC.glob("[0-9]*"):
        try:
            names.update(_MAPPED.findall((process / "maps").read_text(errors="replace")))
            names.update(link.readlink().name for link in (process / "fd").iterdir())
        except OSError:  # It ended, or belongs to somebody else.
            continue
    return names


MACHINE_CHECKS: tuple[Check, ...] = (check_cores, check_priority, check_leftovers)
