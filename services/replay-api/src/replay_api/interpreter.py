"""What this process asks of Python and of the C library, so that neither stops it for long."""

from __future__ import annotations

import ctypes
import gc
import sys

KEPT_BYTES = 64 << 20
"""Freed memory that stays with the process. glibc returns it from a megabyte or two, and to take 2.4 MB back, page by
page, costs as much as gathering a batch."""

MAPPED_BYTES = 8 << 20
"""Blocks from this size are mapped one by one, and returned when they are freed: bodies of many megabytes are rare."""

GARBAGE_THRESHOLDS = 300, 5, 7_000
"""Of Python's garbage collector. A thousand workers that wait for a policy are 200,000 objects, and to look at all of
them stops everything for 0.2 s; by Python's own thresholds that was every few seconds. Only refused bodies leave cycles
behind, which the rounds over young objects find. So the full round is a safeguard: with these it comes after ten
million objects that were made and not freed."""

SWITCH_SECONDS = 0.001
"""After so long a thread hands the interpreter to another that waits for it. The event loop gives it away half a dozen
times while it copies an episode into the memory, and the thread that checks episodes kept it for Python's 5 ms."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def tune() -> None:
    """Once everything is imported: what the modules hold is never garbage, and to look at it all takes 50 ms."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's; other C libraries have none
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    gc.collect()
    gc.freeze()
