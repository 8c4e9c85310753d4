"""Provenance of results: versions, hardware, commit and date."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from recsys_cl import __version__

LIBRARIES = ("torch", "transformers", "accelerate", "datasets", "numpy", "scipy", "scikit-learn", "implicit")


def provenance() -> dict[str, Any]:
    """Versions, hardware, commit and date, to be stored with every result."""
    cuda = torch.cuda.is_available()
    return {
        "versions": {"recsys_cl": __version__, "python": platform.python_version(), **_versions()},
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def commit() -> str | None:
    """Commit of the checkout that the package is imported from, followed by ``+`` if files have changed."""
    folder = Path(__file__).parent
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def _versions() -> dict[str, str]:
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
