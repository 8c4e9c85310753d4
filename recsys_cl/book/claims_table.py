"""Table of the claims ledger as HTML: one row per claim, its numbers folded; scripts add filters and sorting.

See: the claims ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from recsys_cl.book.claims import VERDICTS, Judged, judge, kind_of, read_claims
from recsys_cl.book.evidence import Effect
from recsys_cl.errors import InputError


@dataclass(frozen=True)
class ClaimsTable:
    """Rows of the ledger, which a notebook shows as a table.

    Attributes:
        rows: Claims with their effects.
        filters: Whether the page's script adds filters and sorting.
    """

    rows: Sequence[Judged]
    filters: bool = False

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{name}</th>' for name in ("Verdict", "Claim", "What was found"))
        rows = "\n".join(map(_row, self.rows))
        marked = ' data-filters="yes"' if self.filters else ""
        return f'<table class="claims"{marked}><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table>'


def claims_table(
    chapter: int | None = None,
    *,
    filters: bool = False,
    path: str | Path = "claims.yml",
    folder: str | Path = "results",
) -> ClaimsTable:
    """Table of the ledger, or of the claims that a chapter discusses.

    Raises:
        InputError: If no claim belongs to the chapter, or a verdict does not follow from the stored runs.
    """
    judged = judge(read_claims(path), folder)
    rows = [one for one in judged if chapter in (None, *one.claim.chapters)]
    if not rows:
        raise InputError(f"{path} has no claim with chapter {chapter}; add the number to 'chapters' of an entry")
    return ClaimsTable(rows, filters)


def _row(judged: Judged) -> str:
    claim, verdict = judged.claim, judged.claim.verdict
    mark = f'<span class="mark" aria-hidden="true">{VERDICTS[kind_of(verdict)]}</span> {escape(verdict)}'
    sources = f'<span class="sources">{escape(", ".join(claim.sources))}</span>'
    return (
        f'<tr id="claim-{claim.id}" data-verdict="{escape(kind_of(verdict))}" data-topic="{escape(claim.topic)}">'
        f'<td class="verdict">{mark}</td><td>{escape(claim.claim)} {sources}</td><td>{_found(judged)}</td></tr>'
    )


def _found(judged: Judged) -> str:
    claim = judged.claim
    argued = ""
    if claim.argument:
        argued = "By argument: chapter {chapter}, “{section}”.".format(**claim.argument)
    words = " ".join(filter(None, (claim.remark, argued, claim.needed)))
    numbers = "".join(f"<li>{line}</li>" for effect in judged.effects for line in _lines(effect))
    if not numbers:
        return escape(words)
    count = f"{len(judged.effects)} measurement{'s' if len(judged.effects) > 1 else ''}"
    where = f"<p>{escape(claim.where)}.</p>" if claim.where else ""
    again = f"<p>Run it again: <code>make claim ID={claim.id}</code></p>"
    return f"{escape(words)}<details><summary>{count}</summary>{where}<ul>{numbers}</ul>{again}</details>"


def _lines(effect: Effect) -> list[str]:
    """The effect, with the smallest difference that could have been found where none was, and its caveat."""
    small = effect.p_value is not None and effect.p_value < 0.0001
    tested = "" if effect.p_value is None else ", p < .0001" if small else f", p = {effect.p_value:.4f}"
    parts = [escape(effect.text + tested) + "."]
    if effect.side == "neither" and effect.low * effect.high > 0:
        parts.append("The interval lies beyond zero, but not after the correction for all tests of the ledger.")
    elif effect.side == "neither":
        parts.append(f"A difference of {effect.detectable:.2g} would have been found in four of five such experiments.")
    if effect.caveat:
        parts.append(escape(effect.caveat[0].upper() + effect.caveat[1:]) + ".")
    return [" ".join(parts)]
