"""All figures and tables, in the order of the report."""

from importlib import import_module

from paper_figures.figure import PaperFigure

_MODULES = (
    "verdicts",
    "fig1_losses",
    "fig2_scheme",
    "fig3_calibration",
    "fig4_dropping",
    "fig5_rate_and_size",
    "table1_glue",
    "table2_budgets",
    "table3_instructions",
    "table4_calibration",
    "bounds_and_gap",
    "stability",
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
    found = [import_module(f"paper_figures.{module}").FIGURE for module in _MODULES]
    return {figure.name: figure for figure in found}
