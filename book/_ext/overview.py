"""Draw the picture of the README and the introduction: what is encoded, contrasted, compared and judged.

``python book/_ext/overview.py`` writes ``book/_static/overview.svg``. The colours are those of Okabe and Ito, which
colour-blind readers can tell apart; every mark is also told apart by its shape or its text.
"""

from __future__ import annotations

from pathlib import Path

TARGET = Path(__file__).resolve().parents[1] / "_static" / "overview.svg"
WIDTH, HEIGHT = 1000, 400
INK, FAINT, BLUE, ORANGE, GREEN = "#1b1b1b", "#d9dee4", "#0072b2", "#d55e00", "#00704f"
PEOPLE, FILMS = 5, 5
KNOWN = {(0, 3), (3, 1)}  # what a person already likes is masked: neither positive nor negative


def text(x: float, y: float, words: str, *, size: int = 15, colour: str = INK, weight: str = "normal") -> str:
    """Words centred at ``x``, on the line ``y``."""
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" font-weight="{weight}">{words}</text>'


def box(x: float, y: float, width: float, height: float, *, fill: str, stroke: str = INK) -> str:
    """A rectangle with round corners, by its upper left corner."""
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{fill}" stroke="{stroke}"/>'


def arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    """A line with a head."""
    return (
        f'<path d="M {x} {y} L {to_x} {to_y}" stroke="{INK}" stroke-width="1.6" fill="none" marker-end="url(#head)"/>'
    )


def tower(y: float, what: str, of: str, who: str, chapters: str, colour: str) -> list[str]:
    """An input, the encoder that reads it, and the chapters about it."""
    return [
        box(20, y, 175, 62, fill="#ffffff"),
        text(107, y + 27, what, weight="bold"),
        text(107, y + 47, of, size=13),
        arrow(195, y + 31, 232, y + 31),
        box(238, y, 165, 62, fill=colour, stroke=colour),
        text(320, y + 27, who, colour="#ffffff", weight="bold"),
        text(320, y + 47, chapters, size=13, colour="#ffffff"),
    ]


def matrix(x: float, y: float, cell: float) -> list[str]:
    """Scores of people and films: the diagonal is pulled, known likes are masked, the rest is pushed."""
    parts = []
    for row in range(PEOPLE):
        for column in range(FILMS):
            left, top, middle = x + column * cell, y + row * cell, cell / 2
            pulled = row == column
            fill = BLUE if pulled else "#ffffff" if (row, column) in KNOWN else FAINT
            sign = "+" if pulled else "" if (row, column) in KNOWN else "−"
            parts.append(
                f'<rect x="{left}" y="{top}" width="{cell - 3}" height="{cell - 3}" fill="{fill}" stroke="#8a929b"/>'
            )
            parts.append(text(left + middle - 1.5, top + middle + 4, sign, colour="#ffffff" if pulled else INK))
    return parts


def verdicts(x: float, y: float) -> list[str]:
    """The three words with which a claim may leave the book."""
    parts = [box(x, y, 155, 116, fill="#ffffff"), text(x + 77, y + 24, "claims ledger", weight="bold")]
    for line, (mark, word, colour) in enumerate(
        [("✓", "supported", GREEN), ("◐", "depends", BLUE), ("✗", "refuted", ORANGE)]
    ):
        parts.append(text(x + 77, y + 50 + 24 * line, f"{mark} {word}", colour=colour, weight="bold"))
    return parts


def overview() -> str:
    """The whole picture as SVG."""
    cell, left, top = 33.0, 446.0, 118.0
    parts = [
        box(1, 1, WIDTH - 2, HEIGHT - 2, fill="#ffffff", stroke=FAINT),
        text(211, 40, "encode", size=18, weight="bold"),
        text(left + 81, 40, "contrast", size=18, weight="bold"),
        text(723, 40, "compare", size=18, weight="bold"),
        text(903, 40, "judge", size=18, weight="bold"),
        *tower(110, "a person", "a history of items", "user tower", "chapters 5 and 7", BLUE),
        *tower(232, "an item", "a text, an id", "language model", "chapters 1, 3 and 6", ORANGE),
        arrow(403, 141, 440, 176),
        arrow(403, 263, 440, 228),
        text(left + 81, top - 36, "whose choice was it?", size=14),
        text(left + 81, top - 16, "+ pulled, − pushed, empty: known", size=13),
        *matrix(left, top, cell),
        text(left + 81, top + 5 * cell + 20, "chapters 4, 9 and 10", size=13),
        arrow(614, 200, 646, 200),
        box(652, 116, 142, 170, fill="#ffffff"),
        text(723, 144, "the next events", weight="bold"),
        text(723, 172, "tuned baselines", size=14),
        text(723, 196, "equal searches", size=14),
        text(723, 220, "several seeds", size=14),
        text(723, 244, "intervals", size=14),
        text(723, 274, "chapters 2 and 11", size=13),
        arrow(794, 200, 820, 200),
        *verdicts(826, 142),
        text(
            WIDTH / 2,
            362,
            "recsys_cl: every formula a function, every function a test, every claim an experiment",
            size=15,
        ),
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="Helvetica, Arial, sans-serif" text-anchor="middle">'
        "<title>From texts and histories to verdicts</title>"
        '<defs><marker id="head" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M 0 0 L 10 5 L 0 10 z" fill="{INK}"/></marker></defs>'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    TARGET.write_text(overview(), encoding="utf-8")
