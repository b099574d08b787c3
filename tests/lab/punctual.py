"""Being on time although the machine is busy."""

from __future__ import annotations

import gc
import os
from contextlib import suppress


def be_punctual() -> None:
    """Run before ordinary processes, where the system allows it, and never pause to collect garbage."""
    gc.disable()
    with suppress(PermissionError):  # in a user namespace
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
