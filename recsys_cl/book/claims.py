"""Claims ledger: claims of the sources, effects measured in stored runs, and verdicts derived by one rule."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from pandas.io.formats.style import Styler
from scipy import stats

from recsys_cl.book.results import read_result
from recsys_cl.errors import InputError


@dataclass(frozen=True)
class Effect:
    """Measured effect of one piece of evidence.

    Attributes:
        text: The effect in words, with its interval.
        low: Lower end of the interval, relative to the limit above which the claim holds.
        high: Upper end of the interval, relative to the same limit.
        p_value: Stored p-value, already corrected for multiple tests; 0 if there is no test.
    """

    text: str
    low: float
    high: float
    p_value: float = 0.0

    @property
    def side(self) -> str:
        """Side on which the whole interval lies: ``claimed`` or ``other``; ``neither`` if it has 0 or p ≥ .05."""
        if self.p_value >= 0.05:
            return "neither"
        return "claimed" if self.low > 0 else "other" if self.high < 0 else "neither"


def verdict_from(effects: Iterable[Effect]) -> str:
    """Verdict by one rule for all claims: all effects on the claimed side, on the other, on neither, or a mixture.

    >>> verdict_from([Effect("on one split", 0.01, 0.03), Effect("on another", -0.01, 0.03)])
    'depends'
    """
    rule: dict[tuple[str, ...], str]
    rule = {("claimed",): "supported", ("other",): "refuted", ("neither",): "no difference found"}
    return rule.get(tuple({effect.side for effect in effects}), "depends")


def read_effect(evidence: Mapping[str, Any], folder: str | Path = "results") -> Effect:
    """Read the effect of one piece of evidence from its stored run, ``result``.

    One further key gives the kind of evidence. Its value is a path into the result: each string is a key of a mapping,
    a column of a list of rows or, as ``key=value``, a selection of rows.

    * ``tests``: stored tests, each the reference minus the model under whose name it is stored; ``pair`` names the two.
    * ``test``: one stored test, the first of ``pair`` minus the second.
    * ``draws``: paths of two lists with a value per draw; the effect is their mean difference with a t interval.
    * ``ratio``: like ``draws``, with quotients instead of differences, claimed to be above 1.
    * ``value``: a number, or a mean with its interval, claimed to be ``at least`` or ``at most`` a limit.

    The claim is that the first of a ``pair`` is better. ``names`` are the displayed names of the two, ``of`` is what
    they are compared on, and ``metric`` is the measure.

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
        raise KeyError(f"one of {first!r} and {second!r} must be the reference of {', '.join(tests)}")
    sign, test = (1, tests[second]) if second in tests else (-1, tests[first])
    low, high = sorted(sign * test[end] for end in ("low", "high"))
    return _tested(evidence, sign * test["difference"], low, high, test["p_value"])


def _two_lists(result: Any, paths: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    first, second = (np.array(_at(result, path), dtype=float) for path in paths)
    if first.shape != second.shape or first.size < 2:
        raise ValueError(f"{first.size} and {second.size} draws; give the same number for both, at least 2")
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

VERDICTS = {
    "supported": "✔",
    "refuted": "✘",
    "depends": "◐",
    "no difference found": "≈",
    "open": "?",
    "cannot be tested here": "–",
}
"""Verdicts and their marks, which distinguish them without colour."""

UNJUDGED = ("open", "cannot be tested here")

JUDGED = tuple(verdict for verdict in VERDICTS if verdict not in UNJUDGED)

COLUMNS = ("claim", "sources", "verdict", "what was measured", "run")


@dataclass(frozen=True)
class Claim:
    """One entry of the ledger.

    Attributes:
        id: Name of the claim in the file.
        claim: The source's words, translated.
        sources: Articles and sections that make the claim.
        topic: Part of the ledger that the claim belongs to.
        chapters: Numbers of the chapters that discuss the claim.
        verdict: One of :data:`VERDICTS`.
        place: File, line and id, for error messages.
        evidence: References to stored runs, as :func:`recsys_cl.book.claims.read_effect` expects them.
        command: Commands that made those runs.
        argument: Chapter and section that judge the claim without a run.
        needed: Missing experiment, for a claim without a verdict.
        where: Conditions of the evidence.
        remark: Interpretation of the numbers.
    """

    id: str
    claim: str
    sources: Sequence[str]
    topic: str
    chapters: Sequence[int]
    verdict: str
    place: str
    evidence: Sequence[Mapping[str, Any]] = ()
    command: Sequence[str] = ()
    argument: Mapping[str, Any] | None = None
    needed: str = ""
    where: str = ""
    remark: str = ""

    @property
    def runs(self) -> list[str]:
        """Names of the stored runs, in the order of the evidence."""
        return list(dict.fromkeys(evidence["result"] for evidence in self.evidence))


class _Located(yaml.SafeLoader):
    """YAML loader that adds the line on which a mapping begins to the mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The keys and values of a node, and its line."""
        return super().construct_mapping(node, deep) | {"line": node.start_mark.line + 1}


def read_claims(path: str | Path = "claims.yml") -> list[Claim]:
    """Read the entries of a ledger, in order.

    Raises:
        InputError: If an entry lacks a key, has an unknown key or verdict, has no evidence, or if an id is duplicated;
            the message names the entry and its line.
    """
    claims: dict[str, Claim] = {}
    for entry in yaml.load(Path(path).read_text(encoding="utf-8"), _Located):
        claim = _checked(entry, f"{path}, line {entry.pop('line')}, entry {entry.get('id')!r}")
        if claim.id in claims:
            raise InputError(f"{claim.place}: the id is taken by {claims[claim.id].place}; choose another")
        claims[claim.id] = claim
    return list(claims.values())


def _checked(entry: dict[str, Any], place: str) -> Claim:
    known = {field.name for field in fields(Claim)} - {"place"}
    required = {field.name for field in fields(Claim) if field.default is MISSING} - {"place"}
    for problem, keys in (("unknown", entry.keys() - known), ("missing", required - entry.keys())):
        if keys:
            raise InputError(f"{place}: {problem} {', '.join(sorted(keys))}; the keys are {', '.join(sorted(known))}")
    claim = Claim(**entry, place=place)
    if claim.verdict not in VERDICTS:
        raise InputError(f"{place}: unknown verdict {claim.verdict!r}; it is one of {', '.join(VERDICTS)}")
    bases = ["needed"] if claim.verdict in UNJUDGED else ["evidence", "argument"]
    found = [basis for basis in ("evidence", "argument", "needed") if getattr(claim, basis)]
    if len(found) != 1 or found[0] not in bases:
        rest = " and ".join(found) or "nothing"
        raise InputError(f"{place}: {claim.verdict!r} rests on {rest}; give it {' or '.join(bases)}, and only that")
    return claim


def effects_of(claim: Claim, folder: str | Path = "results") -> list[Effect]:
    """Measured effects of a claim's evidence.

    Raises:
        InputError: If a run, a key or a row is missing; the message names the entry and the line of the evidence.
    """
    effects = []
    for evidence in claim.evidence:
        try:
            effects.append(read_effect(evidence, folder))
        except InputError as error:
            raise InputError(f"{claim.place}, evidence on line {evidence['line']}: {error}") from error
    return effects


def claims_table(
    chapter: int | None = None,
    *,
    topic: str | None = None,
    verdicts: Collection[str] = tuple(VERDICTS),
    path: str | Path = "claims.yml",
    folder: str | Path = "results",
) -> Styler:
    """Table of the ledger, optionally restricted to a chapter, a topic or some verdicts.

    Raises:
        InputError: If no claim matches, or a verdict does not follow from the stored runs.
    """
    chosen = [
        claim
        for claim in read_claims(path)
        if chapter in (None, *claim.chapters) and topic in (None, claim.topic) and claim.verdict in verdicts
    ]
    if not chosen:
        raise InputError(
            f"{path} has no claim with chapter {chapter}, topic {topic!r}, verdict {' or '.join(verdicts)}"
        )
    table = pd.DataFrame([_row(claim, folder) for claim in chosen], columns=list(COLUMNS))
    style = Styler(table, uuid=f"claims-{chosen[0].id}", cell_ids=False).format(escape="html").hide(axis="index")
    looks = {"text-align": "left", "vertical-align": "top", "white-space": "pre-line"}
    return style.set_table_attributes('class="dataframe claims"').set_properties(**looks)


def _row(claim: Claim, folder: str | Path) -> tuple[str, ...]:
    effects = effects_of(claim, folder)
    if effects and claim.verdict != verdict_from(effects):
        raise InputError(f"{claim.place}: {claim.verdict!r} does not follow; write {verdict_from(effects)!r}")
    where = f"{claim.where}:" if claim.where else ""
    argued = "By argument: chapter {chapter}, “{section}”.".format(**claim.argument) if claim.argument else ""
    measured = (where, *(f"• {effect.text}" for effect in effects), argued, claim.needed, claim.remark)
    return (
        claim.claim,
        ", ".join(claim.sources),
        f"{VERDICTS[claim.verdict]} {claim.verdict}",
        "\n".join(part for part in measured if part),
        "\n".join(claim.runs),
    )
