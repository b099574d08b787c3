"""Being on time although the machine is busy."""

from __future__ import annotations

import gc
import os


def be_punctual() -> bool:
    """Run before ordinary processes, if the system allows it, and never pause to collect garbage."""
    gc.disable()
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:  # in a user namespace
        return False
    return True
