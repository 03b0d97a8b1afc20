"""All figures and tables, in the order of the report."""

from importlib import import_module

from paper_figures.press.figure import PaperFigure

_MODULES = (
    "verdicts",
    "paper.fig1_losses",
    "paper.fig2_scheme",
    "paper.fig3_calibration",
    "paper.fig4_dropping",
    "paper.fig5_rate_and_size",
    "paper.table1_glue",
    "paper.table2_budgets",
    "paper.table3_instructions",
    "paper.table4_calibration",
    "bounds_and_gap",
    "stability_over_n",
    "regime_map",
    "ensemble_size",
    "equivalence",
    "mask_laws",
    "matched_loss",
    "calibration_baselines",
)


def figures() -> dict[str, PaperFigure]:
    """Every figure.

    Returns:
        Name -> figure.
    """
    found = [import_module(f"paper_figures.figures.{module}").FIGURE for module in _MODULES]
    return {figure.name: figure for figure in found}
