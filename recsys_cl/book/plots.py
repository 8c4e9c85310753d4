"""One look for the figures of the book."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from cycler import cycler

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours, which colour-blind readers can tell apart: blue, vermilion, green, purple, orange, sky."""

STYLE: dict[str, Any] = {
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=PALETTE),
    "legend.frameon": False,
    "image.cmap": "cividis",
}
"""What differs from Matplotlib's defaults. The ground is white in dark mode too; the page puts a card under it.

Colours alone do not survive print in grey: a figure says dashes, markers or hatches itself. They are not in the cycle,
from which Matplotlib would also dash lines that are given a colour and nothing else.
"""


def use_book_style() -> None:
    """Draw all figures from here on in the book's style.

    References:
        Okabe and Ito (2008), Color Universal Design, https://jfly.uni-koeln.de/color/.

    >>> use_book_style()
    >>> plt.rcParams["axes.spines.top"]
    False
    """
    plt.style.use(STYLE)
