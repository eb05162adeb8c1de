"""The machine that a figure is from: its processor, the instructions that it has, and its memory."""

import os
import platform
import re
from pathlib import Path

INFORMATION = Path("/proc/cpuinfo")
INSTRUCTIONS = {  # a flag of the processor and what it stands for, the widest vectors first
    "avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sse4_2": "SSE4.2", "sve": "SVE", "asimd": "NEON",
}  # fmt: skip


def processor() -> str:
    """The CPU's model, as the system names it."""
    return _told("model name") or platform.processor() or platform.machine()


def instructions() -> str:
    """The widest vector instructions of the CPU, by which figures of the same model may differ."""
    flags = _told("flags|Features").split()
    if not flags and platform.machine() == "arm64":  # of macOS, all of whose ARM processors have them
        return "NEON"
    return next((name for flag, name in INSTRUCTIONS.items() if flag in flags), "instructions unknown")


def memory() -> str:
    try:
        return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    except (AttributeError, ValueError):  # not on every system
        return "memory unknown"


def load() -> float:
    """How many programs wanted the processor in the last minute, on average; 0 where the system does not say."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else 0.0


def _told(names: str) -> str:
    """The first processor's entry under one of these names."""
    information = INFORMATION.read_text() if INFORMATION.exists() else ""
    found = re.search(rf"^(?:{names})\s*:\s*(.+)", information, re.MULTILINE)
    return found[1].strip() if found else ""
