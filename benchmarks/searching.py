"""A search of a fixed number of trials, the same for every model of a table, resumable."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from parts import kept

Settings = dict[str, Any]


def search_trials(
    space: Mapping[str, list[Any]],
    default: Settings,
    measure: Callable[[Settings], dict[str, Any]],
    folder: Path,
    name: str,
    *,
    trials: int,
    value: str = "value",
) -> list[dict[str, Any]]:
    """So many different settings, the default first, then as a tree-structured Parzen estimator proposes.

    ``measure`` gives at least what ``value`` names, the larger the better. Settings that come again cost nothing and
    do not count.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(n_startup_trials=min(8, trials // 2), multivariate=True, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial(default)
    done: list[dict[str, Any]] = []
    while len(done) < trials:
        asked = study.ask()
        settings = {key: asked.suggest_categorical(key, values) for key, values in space.items()}
        known = [trial for trial in done if trial["settings"] == settings]
        if not known:
            file = folder / f"{name}-{len(done)}.json"
            done.append(kept(file, lambda s=settings: {"settings": s, **measure(s)}))  # type: ignore[misc]
            assert done[-1]["settings"] == settings, f"{file} is of another search; remove it"
        study.tell(asked, (known or done[-1:])[0][value])
    return done
