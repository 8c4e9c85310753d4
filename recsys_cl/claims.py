"""The claims ledger: what the sources claim, what was measured, and the verdict that follows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pandas.io.formats.style import Styler

from recsys_cl.errors import InputError
from recsys_cl.evidence import Effect, read_effect, verdict_from

VERDICTS = {
    "supported": "✔",
    "refuted": "✘",
    "depends": "◐",
    "no difference found": "≈",
    "open": "?",
    "cannot be tested here": "–",
}
"""Every verdict with a mark: with its word it can be told without a colour."""

UNJUDGED = ("open", "cannot be tested here")
JUDGED = tuple(verdict for verdict in VERDICTS if verdict not in UNJUDGED)
COLUMNS = ("claim", "sources", "verdict", "what was measured", "run")


@dataclass(frozen=True)
class Claim:
    """One entry of the ledger.

    Attributes:
        id: Its name in the file.
        claim: The source's words, translated.
        sources: Articles and sections that make it.
        topic: The part of the ledger that it belongs to.
        chapters: Numbers of the chapters that treat it.
        verdict: One of :data:`VERDICTS`.
        place: File, line and id, for errors.
        evidence: What is read from stored runs, as :func:`recsys_cl.evidence.read_effect` takes it.
        command: The commands that made those runs.
        argument: Chapter and section that judge it without a run.
        needed: The experiment that is missing, of a claim without verdict.
        where: Under which conditions the evidence was found.
        remark: What the numbers mean.
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
    """YAML whose mappings know the line on which they begin."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The keys and values of a node, and its line."""
        return super().construct_mapping(node, deep) | {"line": node.start_mark.line + 1}


def read_claims(path: str | Path = "claims.yml") -> list[Claim]:
    """The entries of a ledger, in its order.

    Raises:
        InputError: If an entry lacks a key, has an unknown one or an unknown verdict, rests on nothing, or if an id
            is double; the message names the entry and its line.
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
    """What each piece of a claim's evidence measured.

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
    """The ledger, or what of it concerns a chapter, a topic or some verdicts.

    Raises:
        InputError: If nothing is left to show, or a verdict is not the one that follows from the stored runs.
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
