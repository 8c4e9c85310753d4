"""What stored runs measured about a claim, and the verdict that follows by one rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from recsys_cl.errors import InputError
from recsys_cl.results import read_result


@dataclass(frozen=True)
class Effect:
    """What one piece of evidence measured.

    Attributes:
        text: In words, with its interval.
        low: Lower end of the interval, counted from where the claim begins to hold.
        high: Upper end.
        p_value: As stored, corrected there; 0 where none is.
    """

    text: str
    low: float
    high: float
    p_value: float = 0.0

    @property
    def side(self) -> str:
        """On which side the whole interval lies: ``claimed``, ``other``, or ``neither``; that also if p ≥ .05."""
        if self.p_value >= 0.05:
            return "neither"
        return "claimed" if self.low > 0 else "other" if self.high < 0 else "neither"


def verdict_from(effects: Iterable[Effect]) -> str:
    """One rule for all claims: every effect on the claimed side, on the other, on neither, or a mixture.

    >>> verdict_from([Effect("on one split", 0.01, 0.03), Effect("on another", -0.01, 0.03)])
    'depends'
    """
    rule: dict[tuple[str, ...], str]
    rule = {("claimed",): "supported", ("other",): "refuted", ("neither",): "no difference found"}
    return rule.get(tuple({effect.side for effect in effects}), "depends")


def read_effect(evidence: Mapping[str, Any], folder: str | Path = "results") -> Effect:
    """What one piece of evidence finds in its stored run, ``result``.

    One further key says of which kind it is; its value is a path into the result, in which a string leads into a
    mapping, takes a column of a list of rows or, as ``key=value``, chooses rows of it.

    * ``tests``: stored tests, each reference minus the model whose name it bears; ``pair`` names the two.
    * ``test``: one stored test, the first of ``pair`` minus the second.
    * ``draws``: paths of two lists, a value per draw; their mean difference with a t interval.
    * ``ratio``: the same of their quotients, claimed to be above 1.
    * ``value``: a number, or a mean with its interval, claimed to be ``at least`` or ``at most`` a limit.

    Of a ``pair`` the claim has the first ahead. ``names`` is how the two are shown, ``of`` what they are compared
    on, ``metric`` by which measure.

    Raises:
        InputError: If the run, a key or a row is missing.
    """
    kinds = [kind for kind in _READERS if kind in evidence]
    if len(kinds) != 1 or "result" not in evidence:
        raise InputError(f"evidence has a result and one of {', '.join(_READERS)}, but this has {', '.join(evidence)}")
    result = read_result(evidence["result"], folder)["result"]
    try:
        return _READERS[kinds[0]](result, evidence)
    except (KeyError, TypeError, ValueError) as error:
        path = evidence[kinds[0]]
        raise InputError(
            f"no {kinds[0]} at {path} of {evidence['result']!r}: {error}; compare with its file"
        ) from error


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


def _pair(evidence: Mapping[str, Any]) -> str:
    pair = " against ".join(evidence.get("names", evidence["pair"]))
    return f"{evidence['of']}: {pair}" if "of" in evidence else pair


def _difference(evidence: Mapping[str, Any], value: float, low: float, high: float) -> str:
    return f"{_pair(evidence)}: {value:+.4f} {evidence.get('metric', 'NDCG@10')} ({low:+.4f} to {high:+.4f})"


def _tested(evidence: Mapping[str, Any], value: float, low: float, high: float, p_value: float) -> Effect:
    return Effect(f"{_difference(evidence, value, low, high)}, p\u00a0=\u00a0{p_value:.4f}", low, high, p_value)


def _stored_test(result: Any, evidence: Mapping[str, Any]) -> Effect:
    test = _at(result, evidence["test"])
    return _tested(evidence, test["difference"], test["low"], test["high"], test["p_value"])


def _stored_tests(result: Any, evidence: Mapping[str, Any]) -> Effect:
    tests, (first, second) = _at(result, evidence["tests"]), evidence["pair"]
    if (first in tests) == (second in tests):
        raise KeyError(f"of {first!r} and {second!r} one has to be the reference of {', '.join(tests)}")
    sign, test = (1, tests[second]) if second in tests else (-1, tests[first])
    low, high = sorted(sign * test[end] for end in ("low", "high"))
    return _tested(evidence, sign * test["difference"], low, high, test["p_value"])


def _two_lists(result: Any, paths: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    first, second = (np.array(_at(result, path), dtype=float) for path in paths)
    if first.shape != second.shape or first.size < 2:
        raise ValueError(f"{first.size} and {second.size} draws; it takes the same number for both, at least 2")
    return first, second


def _t_interval(values: np.ndarray) -> tuple[float, float, float]:
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def _draws(result: Any, evidence: Mapping[str, Any]) -> Effect:
    first, second = _two_lists(result, evidence["draws"])
    value, low, high = _t_interval(first - second)
    return Effect(f"{_difference(evidence, value, low, high)} over {len(first)} draws", low, high)


def _ratio(result: Any, evidence: Mapping[str, Any]) -> Effect:
    first, second = _two_lists(result, evidence["ratio"])
    value, low, high = _t_interval(first / second)
    text = f"{_pair(evidence)}: {value:.2f} times the {evidence['metric']} ({low:.2f} to {high:.2f})"
    return Effect(text, low - 1, high - 1)


def _value(result: Any, evidence: Mapping[str, Any]) -> Effect:
    found = _at(result, evidence["value"])
    value, low, high = (found[key] for key in ("mean", "low", "high")) if isinstance(found, Mapping) else [found] * 3
    claimed = "at least" if "at least" in evidence else "at most"
    limit = evidence[claimed]
    interval = "" if low == high else f" ({low:.3g} to {high:.3g})"
    text = f"{evidence['of']}: {value:.3g}{interval}, claimed {claimed} {limit:g}"
    return Effect(text, *((low - limit, high - limit) if claimed == "at least" else (limit - high, limit - low)))


_READERS = {"tests": _stored_tests, "test": _stored_test, "draws": _draws, "ratio": _ratio, "value": _value}
