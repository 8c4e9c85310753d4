"""Claims ledger: claims of the sources, and verdicts that follow from stored runs by one rule.

See: the claims ledger, and chapter 2 on tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from recsys_cl.book.evidence import Comparison, Effect, read_effect, result_of
from recsys_cl.data.datasets import TITLES
from recsys_cl.errors import InputError
from recsys_cl.evaluation import holm

VERDICTS = {
    "supported": "✔",
    "holds on": "✓",
    "refuted": "✘",
    "fails on": "✗",
    "depends": "◐",
    "no difference found": "≈",
    "open": "?",
    "cannot be tested here": "–",
}
"""Verdicts and their marks, which distinguish them without colour; ``holds on`` and ``fails on`` name a data set."""

UNJUDGED = ("open", "cannot be tested here")


def verdict_from(effects: Iterable[Effect]) -> str:
    """Verdict by one rule for all claims.

    On one data set all effects lie on the claimed side, on the other side, on neither, or they are mixed. A claim that
    holds (or fails) on two data sets or more, and on none the other way, is ``supported`` (or ``refuted``); where one
    data set alone was tried, the verdict names it.

    >>> verdict_from([Effect("on one split", 0.01, 0.03), Effect("on another", -0.01, 0.03)])
    'depends'
    >>> verdict_from([Effect("", 0.01, 0.03, data="films"), Effect("", 0.02, 0.03, data="games")])
    'supported'
    >>> verdict_from([Effect("", 0.01, 0.03, data="games")])
    'holds on games'
    """
    sides: dict[str, set[str]] = {}
    for effect in effects:
        sides.setdefault(effect.data, set()).add(effect.side)
    found = {data: next(iter(side)) if len(side) == 1 else "mixed" for data, side in sides.items()}
    decided = [data for data, side in found.items() if side != "neither"]
    if not decided:
        return "no difference found"
    claimed = {found[data] for data in decided}
    if claimed not in ({"claimed"}, {"other"}) or (len(decided) == 1 < len(found)):
        return "depends"
    positive = claimed == {"claimed"}
    if len(decided) > 1:
        return "supported" if positive else "refuted"
    return f"{'holds' if positive else 'fails'} on {TITLES.get(decided[0], decided[0])}"


def kind_of(verdict: str) -> str:
    """Key of :data:`VERDICTS`: the verdict without the name of a data set.

    >>> kind_of("holds on games")
    'holds on'
    """
    return next((kind for kind in ("holds on", "fails on") if verdict.startswith(kind + " ")), verdict)


@dataclass(frozen=True)
class Claim:
    """One entry of the ledger.

    Attributes:
        id: Name of the claim in the file.
        claim: The source's words, translated.
        sources: Articles and sections that make the claim.
        topic: Part of the ledger that the claim belongs to.
        chapters: Numbers of the chapters that discuss the claim.
        verdict: One of :data:`VERDICTS`, with the name of a data set where it has one.
        place: File, line and id, for error messages.
        evidence: References to stored runs, as :func:`recsys_cl.book.evidence.read_effect` expects them.
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
    argument: Mapping[str, Any] | None = None
    needed: str = ""
    where: str = ""
    remark: str = ""

    @property
    def runs(self) -> list[str]:
        """Names of the stored runs, in the order of the evidence."""
        return list(dict.fromkeys(map(result_of, self.evidence)))


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
    if kind_of(claim.verdict) not in VERDICTS:
        raise InputError(f"{place}: unknown verdict {claim.verdict!r}; it is one of {', '.join(VERDICTS)}")
    bases = ["needed"] if claim.verdict in UNJUDGED else ["evidence", "argument"]
    found = [basis for basis in ("evidence", "argument", "needed") if getattr(claim, basis)]
    if len(found) != 1 or found[0] not in bases:
        rest = " and ".join(found) or "nothing"
        raise InputError(f"{place}: {claim.verdict!r} rests on {rest}; give it {' or '.join(bases)}, and only that")
    return claim


def comparisons(claims: Iterable[Claim]) -> list[Comparison]:
    """Comparisons of arms that the evidence of the claims names, without repetitions."""
    return list(dict.fromkeys(Comparison.of(one) for claim in claims for one in claim.evidence if "arms" in one))


@dataclass(frozen=True)
class Judged:
    """A claim with its effects; their p-values are corrected for all tests of the ledger."""

    claim: Claim
    effects: Sequence[Effect]


def judge(claims: Sequence[Claim], folder: str | Path = "results") -> list[Judged]:
    """Read the effects of all claims, with Holm's correction over all of their tests.

    The claims must be the whole ledger: a part of it would be corrected for its own tests alone.

    Raises:
        InputError: If a run, a key or a row is missing, if a comparison is none, or if a verdict does not follow; the
            message names the entry and the line of the evidence.
    """
    effects = [[_read(claim, evidence, folder) for evidence in claim.evidence] for claim in claims]
    tested = [effect for one in effects for effect in one if effect.p_value is not None]
    corrected = iter(holm(np.array([effect.p_value for effect in tested])))
    effects = [
        [effect if effect.p_value is None else replace(effect, p_value=float(next(corrected))) for effect in one]
        for one in effects
    ]
    for claim, found in zip(claims, effects, strict=True):
        if found and claim.verdict != verdict_from(found):
            raise InputError(f"{claim.place}: {claim.verdict!r} does not follow; write {verdict_from(found)!r}")
    return [Judged(claim, found) for claim, found in zip(claims, effects, strict=True)]


def _read(claim: Claim, evidence: Mapping[str, Any], folder: str | Path) -> Effect:
    try:
        return read_effect(evidence, folder)
    except InputError as error:
        raise InputError(f"{claim.place}, evidence on line {evidence['line']}: {error}") from error
