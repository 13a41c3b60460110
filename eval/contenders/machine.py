"""What the benchmark must know of the machine: its processor, and whether other programs were at work."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

_STAT, _PROCESSORS = Path("/proc/stat"), Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Moment:
    """Processor seconds so far: of everything on this machine, and of this process and its children that have ended."""

    at: float
    machine: float
    own: float


def moment() -> Moment | None:
    """The seconds as of now; None where the system does not tell (elsewhere than on Linux)."""
    if not _STAT.is_file():
        return None
    user, nice, system, _idle, _waiting, irq, soft, stolen = map(int, _STAT.read_text(encoding="ascii").split()[1:9])
    ticks = user + nice + system + irq + soft + stolen
    spent = os.times()
    own = spent.user + spent.system + spent.children_user + spent.children_system
    return Moment(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), own)


def others_share(before: Moment | None, after: Moment | None) -> float:
    """The share in [0, 1] of all processors that others had meanwhile; 0 where it is not known.

    Children count as this program only once they have ended: take `after` when they have.
    """
    if before is None or after is None or after.at <= before.at:
        return 0.0
    others = (after.machine - before.machine) - (after.own - before.own)
    return min(1.0, max(0.0, others / ((after.at - before.at) * (os.cpu_count() or 1))))


def processor_name() -> str:
    """What the system calls its processor."""
    if _PROCESSORS.is_file():
        for line in _PROCESSORS.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
