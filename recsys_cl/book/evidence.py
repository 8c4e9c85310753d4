"""Evidence for claims: effects read from stored runs, refused where the comparison does not support a verdict.

A comparison has two arms that differ in one thing, and one unit of chance; both are checked against the stored run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from recsys_cl.book.results import read_result
from recsys_cl.errors import InputError

POWER = 0.8
LEVEL = 0.05


@dataclass(frozen=True)
class Effect:
    """Measured effect of one piece of evidence.

    Attributes:
        text: The effect in words, with its interval.
        low: Lower end of the 95 % interval, relative to the limit above which the claim holds.
        high: Upper end of the interval, relative to the same limit.
        p_value: Two-sided p-value; ``None`` for a measured cost or quantity, about which no test is made.
        data: Data set.
        caveat: What else differs between the arms, and why that is accepted.
    """

    text: str
    low: float
    high: float
    p_value: float | None = None
    data: str = "ml-100k"
    caveat: str = ""

    @property
    def side(self) -> str:
        """Side on which the whole interval lies: ``claimed`` or ``other``; ``neither`` if it has 0 or p ≥ .05."""
        if self.p_value is not None and self.p_value >= LEVEL:
            return "neither"
        return "claimed" if self.low > 0 else "other" if self.high < 0 else "neither"

    @property
    def detectable(self) -> float:
        """Smallest difference that a test at the 5 % level finds with 80 % power, from the width of the interval."""
        error = (self.high - self.low) / 2 / stats.norm.ppf(1 - LEVEL / 2)
        return float(error * (stats.norm.ppf(1 - LEVEL / 2) + stats.norm.ppf(POWER)))


@dataclass(frozen=True)
class Comparison:
    """Two arms that are fitted under one protocol.

    Attributes:
        under: Protocol, which the stored run ``ledger-{under}`` has.
        arms: Names of the arms; the claim is that the first is better.
        metric: Metric of each query of the first arm.
        rival_metric: Metric of the second arm.
        group: Queries that the claim is about, ``""`` for all.
    """

    under: str
    arms: tuple[str, str]
    metric: str = "ndcg@10"
    rival_metric: str = "ndcg@10"
    group: str = ""

    @classmethod
    def of(cls, evidence: Mapping[str, Any]) -> Comparison:
        """The comparison that a piece of evidence names."""
        first, second = evidence["arms"]
        metric = evidence.get("measure", "ndcg@10")
        rival = evidence.get("rival_measure", metric)
        return cls(evidence["under"], (first, second), metric, rival, evidence.get("group", ""))

    @property
    def key(self) -> str:
        """Name of the comparison in its stored run."""
        metrics = " minus ".join(dict.fromkeys((self.metric, self.rival_metric)))
        return "; ".join(filter(None, (" minus ".join(self.arms), metrics, self.group)))


def result_of(evidence: Mapping[str, Any]) -> str:
    """Name of the stored run of a piece of evidence.

    Raises:
        InputError: If it names none.
    """
    if "arms" in evidence and "under" in evidence:
        return f"ledger-{evidence['under']}"
    if "result" not in evidence:
        raise InputError(
            f"evidence names a stored run by 'result', or 'arms' and 'under'; this has {', '.join(evidence)}"
        )
    return str(evidence["result"])


def read_effect(evidence: Mapping[str, Any], folder: str | Path = "results") -> Effect:
    """Read the effect of one piece of evidence from its stored run.

    One key gives the kind of evidence:

    * ``arms``: the arms of a comparison of the run ``ledger-{under}``, which may name a ``measure`` and a ``group``.
    * ``tests``: path of stored tests, each of the reference minus the model under whose name it is stored.
    * ``test``: path of one stored test, the first of ``between`` minus the second.
    * ``ratio``: paths of two lists with a value per round; the mean quotient is claimed to be above 1.
    * ``value``: path of a number, or of a mean with its interval, claimed to be ``at least`` or ``at most`` a limit.

    A path has keys of mappings, columns of lists of rows or, as ``key=value``, selections of rows. ``between`` names
    the arms of stored tests. ``differ`` names the one setting in which the arms differ (``method`` for recommenders of
    different classes), ``also`` maps each further setting to the reason why it may differ.

    Raises:
        InputError: If the run, a key or a row is missing, if the arms differ in more than is said, come from different
            releases of the package, or if the unit of chance does not suit the split.
    """
    kinds = [kind for kind in _READERS if kind in evidence]
    if len(kinds) != 1:
        raise InputError(f"evidence has one of {', '.join(_READERS)}, but this has {', '.join(evidence)}")
    name = result_of(evidence)
    result = read_result(name, folder)["result"]
    try:
        return _READERS[kinds[0]](result, evidence)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"no {kinds[0]} at {evidence[kinds[0]]} of {name!r}: {error}; compare with its file"
        ) from error


# what a comparison must be


def check_unit(split: str, unit: str) -> None:
    """Check that an interval covers what varies: items, where the items are drawn, and never draws of one split.

    Raises:
        InputError: If it does not.
    """
    valid = UNITS.get(split, ("users", "trainings"))
    if unit not in valid:
        raise InputError(
            f"the interval covers {unit}, but on {split!r} the difference varies with {' or '.join(valid)}; test these"
        )


UNITS: Mapping[str, tuple[str, ...]] = {"cold-items": ("folds of items",)}
"""Valid units of chance by split; on others it is users, or trainings for measures of all lists together."""


def difference_of(first: Mapping[str, Any], second: Mapping[str, Any]) -> set[str]:
    """Names of the settings in which two arms differ; ``method`` for recommenders of different classes.

    The settings of a component belong to it: a loss with another margin is another ``loss``.
    """
    if first["recommender"] != second["recommender"]:
        return {"method"}
    one, other = first["settings"], second["settings"]
    return {name.partition(".")[0] for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def check_arms(evidence: Mapping[str, Any], arms: Mapping[str, Any], names: Sequence[str]) -> None:
    """Check that two arms differ in the one thing that the evidence says, and in nothing else that it does not name.

    Raises:
        InputError: If they differ in more, in less, or come from different releases of the package.
    """
    missing = [name for name in names if name not in arms]
    if missing:
        raise InputError(f"the run stores no settings of {missing[0]!r}; it has {', '.join(arms) or 'none'}")
    first, second = (arms[name] for name in names)
    if first["version"] != second["version"]:
        raise InputError(
            f"{names[0]!r} is of release {first['version']}, {names[1]!r} of {second['version']}; run both again"
        )
    differ, also = evidence.get("differ"), set(reasons(evidence))
    if evidence.get("rival_measure", evidence.get("measure")) != evidence.get("measure"):
        found = difference_of(first, second) | {"measure"}
    else:
        found = difference_of(first, second)
    if differ not in found:
        raise InputError(f"{names[0]!r} and {names[1]!r} do not differ in {differ!r}; they do in {_listed(found)}")
    unnamed = found - {differ} - also
    if unnamed or also - found:
        raise InputError(
            f"{names[0]!r} and {names[1]!r} differ in {differ!r} and in {_listed(found - {differ})}, but 'also' names "
            f"{_listed(also)}; make the settings equal, or name each difference with its reason"
        )


def reasons(evidence: Mapping[str, Any]) -> dict[str, str]:
    """Further settings in which the arms differ, each with the reason why it may."""
    return {name: why for name, why in evidence.get("also", {}).items() if name != "line"}


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def p_of(difference: float, low: float, high: float) -> float:
    """Two-sided p-value of a normal difference, from its 95 % interval.

    Stored tables hold p-values that are corrected for the table; the ledger corrects over all of its tests, once.

    >>> round(p_of(0.02, 0.02 - 0.0196, 0.02 + 0.0196), 3)
    0.046
    """
    error = (high - low) / (2 * stats.norm.ppf(1 - LEVEL / 2))
    return float(2 * stats.norm.sf(abs(difference) / error))


# readers


def _at(node: Any, path: Sequence[str]) -> Any:
    for step in path:
        if isinstance(node, list):
            key, chooses, wanted = step.partition("=")
            rows = [row for row in node if str(row[key]) == wanted] if chooses else [row[step] for row in node]
            if not rows:
                raise KeyError(f"no row with {step}")
            node = rows[0] if chooses and len(rows) == 1 else rows
        elif step in node:
            node = node[step]
        else:
            raise KeyError(f"no {step!r} among {', '.join(node)}")
    return node


def _tested(
    evidence: Mapping[str, Any], names: Sequence[str], found: Mapping[str, Any], unit: str, data: str
) -> Effect:
    pair = " against ".join(evidence.get("names", names))
    subject = f"{evidence['of']}: {pair}" if "of" in evidence else pair
    low, high, metric = found["low"], found["high"], evidence.get("metric", "NDCG@10")
    text = f"{subject}: {found['difference']:+.4f} {metric} ({low:+.4f} to {high:+.4f}; {unit})"
    caveat = "; ".join(f"{name} differs too: {why}" for name, why in reasons(evidence).items())
    return Effect(text, low, high, found["p_value"], data, caveat)


def _arms(result: Any, evidence: Mapping[str, Any]) -> Effect:
    one, protocol = Comparison.of(evidence), result["protocol"]
    check_unit(protocol["split"], protocol["unit"])
    check_arms(evidence, result["arms"], one.arms)
    found = _at(result, ["comparisons", one.key])
    return _tested(evidence, one.arms, found, f"{found['units']} {protocol['unit']}", protocol["data"])


def _between(result: Any, evidence: Mapping[str, Any], names: Sequence[str], found: Mapping[str, Any]) -> Effect:
    protocol = result.get("protocol", {})
    unit = protocol.get("unit", "users")
    check_unit(protocol.get("split", ""), unit)
    check_arms(evidence, result.get("arms", {}), names)
    if unit == "users":
        found = {**found, "p_value": p_of(found["difference"], found["low"], found["high"])}
    return _tested(evidence, names, found, unit, protocol.get("data", "ml-100k"))


def _stored_test(result: Any, evidence: Mapping[str, Any]) -> Effect:
    return _between(result, evidence, evidence["between"], _at(result, evidence["test"]))


def _stored_tests(result: Any, evidence: Mapping[str, Any]) -> Effect:
    tests, (first, second) = _at(result, evidence["tests"]), evidence["between"]
    if (first in tests) == (second in tests):
        raise KeyError(f"one of {first!r} and {second!r} must be the reference of {', '.join(tests)}")
    sign, test = (1, tests[second]) if second in tests else (-1, tests[first])
    low, high = sorted(sign * test[end] for end in ("low", "high"))
    turned = {"difference": sign * test["difference"], "low": low, "high": high, "p_value": test["p_value"]}
    return _between(result, evidence, evidence["between"], turned)


def _ratio(result: Any, evidence: Mapping[str, Any]) -> Effect:
    first, second = (np.array(_at(result, path), dtype=float) for path in evidence["ratio"])
    if first.shape != second.shape or first.size < 2:
        raise ValueError(f"{first.size} and {second.size} rounds; give the same number for both, at least 2")
    quotients = first / second
    low, high = stats.ttest_1samp(quotients, 1).confidence_interval()
    names = " against ".join(evidence["names"])
    text = (
        f"{names}: {quotients.mean():.2f} times the {evidence['metric']} ({low:.2f} to {high:.2f}; {first.size} rounds)"
    )
    return Effect(text, float(low) - 1, float(high) - 1)


def _value(result: Any, evidence: Mapping[str, Any]) -> Effect:
    found = _at(result, evidence["value"])
    if isinstance(found, Mapping):
        value, low, high = found.get("mean", found.get("value")), found["low"], found["high"]
    else:
        value = low = high = found
    claimed = "at least" if "at least" in evidence else "at most"
    limit = evidence[claimed]
    interval = "" if low == high else f" ({low:.3g} to {high:.3g})"
    text = f"{evidence['of']}: {value:.3g}{interval}, claimed {claimed} {limit:g}"
    return Effect(text, *((low - limit, high - limit) if claimed == "at least" else (limit - high, limit - low)))


_READERS: Mapping[str, Callable[[Any, Mapping[str, Any]], Effect]] = {
    "arms": _arms,
    "tests": _stored_tests,
    "test": _stored_test,
    "ratio": _ratio,
    "value": _value,
}
