"""Parts of a stored run, kept on disk as they are finished, so that an interrupted run goes on where it stopped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def kept(file: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The content of ``file``, made and written if it is not there yet."""
    if not file.exists():
        result = make()
        print(f"{file.stem}: {result}", flush=True)
        file.with_suffix(".new").write_text(json.dumps(result))
        file.with_suffix(".new").rename(file)
    return json.loads(file.read_text())
