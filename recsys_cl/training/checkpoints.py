"""Training checkpoints: check settings before a resume, find the newest intact one, reject weights that do not fit.

See: chapter 5.
"""

from __future__ import annotations

import json
import os
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from recsys_cl.errors import InputError

MAY_CHANGE = ("learning_rate", "precision", "checkpoints")
"""Settings that may differ when a run is resumed."""


def first_process() -> bool:
    """Whether this is the first of the training processes, the only one that writes files."""
    return int(os.environ.get("RANK", "0")) == 0


def claim(folder: Path, settings: dict[str, Any], *, resume: bool) -> None:
    """Write the settings of a new run, or check that a resumed run has the same ones except :data:`MAY_CHANGE`.

    Raises:
        InputError: If the settings differ, or if a new run finds checkpoints of another run.
    """
    file = folder / "settings.json"
    if resume:
        try:
            before = dict(json.loads(file.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"{str(file)!r} is missing or damaged, so the run cannot be resumed; start afresh"
            ) from error
        for name in settings:
            if name not in MAY_CHANGE and before.get(name) != settings[name]:
                raise InputError(
                    f"the run in {str(folder)!r} has {name}={before.get(name)!r}, not {settings[name]!r}; "
                    "resume it with its own settings, or start in another folder"
                )
    if not first_process():
        return
    if not resume and any(folder.glob("checkpoint-*")):
        raise InputError(f"{str(folder)!r} holds the checkpoints of another run; pass --resume or another folder")
    folder.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(settings, indent=2) + "\n")
    part.replace(file)  # atomic, for the processes that read it


def newest_checkpoint(folder: str | Path) -> Path:
    """The newest intact checkpoint; damaged ones are skipped with a warning.

    Raises:
        InputError: If there is none.
    """
    found = newest_or_none(folder)
    if found is None:
        raise InputError(f"no intact checkpoint in {str(folder)!r}; train without --resume")
    return found


def newest_or_none(folder: str | Path) -> Path | None:
    """The newest intact checkpoint, or ``None``."""
    numbered = [
        (int(match[1]), path)
        for path in Path(folder).glob("checkpoint-*")
        if (match := re.search(r"-(\d+)$", path.name))
    ]
    for _, checkpoint in sorted(numbered, reverse=True):
        fault = _fault(checkpoint)
        if fault is None:
            return checkpoint
        warnings.warn(f"{checkpoint.name} is damaged ({fault}); falling back to the previous one", stacklevel=3)
    return None


def check_fit(checkpoint: Path, model: nn.Module) -> None:
    """Reject weights of another architecture or catalogue.

    Raises:
        InputError: With the first weight that differs.
    """
    with safe_open(checkpoint / "model.safetensors", framework="pt") as tensors:
        there = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    here = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise InputError(
                f"{str(checkpoint)!r} is of another network or catalogue: {name} is {there.get(name, 'absent')} there "
                f"and {here.get(name, 'absent')} here; resume with the model and data of the original run"
            )


def _fault(checkpoint: Path) -> str | None:
    """Description of the damage to a checkpoint, or ``None`` if it is intact."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
        with safe_open(checkpoint / "model.safetensors", framework="pt") as tensors:
            tensors.keys()
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        noise = ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]
        for name in ("optimizer.pt", "scheduler.pt", *noise):
            with zipfile.ZipFile(checkpoint / name) as archive:  # what torch.save writes
                if (broken := archive.testzip()) is not None:
                    return f"{name}: {broken} fails its checksum"
    except (OSError, ValueError, zipfile.BadZipFile, SafetensorError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return None
