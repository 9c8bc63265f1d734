"""What the figures of a benchmark were taken on."""

import importlib.metadata
import os
import platform
from typing import Any


def machine(*libraries: str) -> dict[str, Any]:
    """Cores this process may use, how busy they were (load average of the last minute), and versions.

    Args:
        libraries: names of installed distributions.
    """
    return {
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in libraries},
    }
