"""The verdict on every claim: the ledger as a picture."""

from collections import Counter

from matplotlib import pyplot as plt

from lora_bounds.claims import all_claims
from lora_bounds.trial.claim import Verdict
from paper_figures.press.figure import Context, Drawing, PaperFigure
from paper_figures.press.style import BLUE, GREEN, GREY, ORANGE, RED

_COLORS = {
    Verdict.PROVED: GREEN,
    Verdict.HOLDS: BLUE,
    Verdict.HOLDS_UNDER: ORANGE,
    Verdict.REFUTED: RED,
    Verdict.NOT_ESTABLISHED: GREY,
}
_SIGNS = dict(zip(_COLORS, ("P", "H", "U", "R", "?"), strict=True))
_COLUMNS = 3


def draw(context: Context) -> Drawing:
    """Draw the verdicts on record.

    Args:
        context: Not used: nothing is trained.

    Returns:
        The drawing.
    """
    del context
    claims = all_claims()
    height = -(-len(claims) // _COLUMNS)
    figure, axis = plt.subplots(figsize=(10, 0.21 * height + 0.8), layout="constrained")
    for i, claim in enumerate(claims):
        column, row = divmod(i, height)
        box = {"boxstyle": "square,pad=0.25", "facecolor": _COLORS[claim.recorded], "lw": 0}
        axis.text(column + 0.02, -row, _SIGNS[claim.recorded], color="white", fontsize=7,
                  family="monospace", ha="center", va="center", bbox=box)  # fmt: skip
        axis.text(column + 0.06, -row, claim.id, fontsize=7.5, va="center")
    axis.set_xlim(-0.02, _COLUMNS)
    axis.set_ylim(-height, 1)
    axis.set_axis_off()
    handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in _COLORS.values()]
    names = [f"{_SIGNS[v]}  {v}" for v in _COLORS]
    figure.legend(handles, names, loc="outside lower center", ncols=5, fontsize=8)
    counts = Counter(claim.recorded for claim in claims)
    shown = ", ".join(f"{counts[v]} {v}" for v in _COLORS if counts[v])
    return Drawing(
        figure=figure,
        rows=[
            {
                "claim": claim.id,
                "item": claim.paper_item,
                "verdict": str(claim.recorded),
                "statement": claim.statement,
            }
            for claim in claims
        ],
        caption=(
            f"{len(claims)} claims of the paper, of its audit, and about measured adapters: "
            f"{shown}. HOLDS UNDER: false as stated, true under a further assumption that the "
            "ledger names. Verdicts on record; `lora-bounds verify` derives each again from "
            "proofs, counterexamples, sweeps and measurements (about a minute)."
        ),
        verdict="not in the paper",
    )


FIGURE = PaperFigure("verdicts", "Which claims survive", draw, ("quick", "lm", "paper"))
