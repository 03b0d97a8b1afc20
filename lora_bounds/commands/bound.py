"""`lora-bounds bound`: every bound on one problem, side by side."""

import argparse
import math
import textwrap
from typing import Any

import numpy as np

from lora_bounds.bounds.compare import Comparison, compare_bounds

_NOTES = """example, MRPC-sized:
  lora-bounds bound --n 3668 --dropout 0.5 --lipschitz 0.5 --regularization 10
with PAC-Bayes:
  lora-bounds bound --n 3668 --dropout 0.5 --squared-norm 20 --width 0.3
with 408 unseen examples, 61 of them mistaken:
  lora-bounds bound --n 3668 --dropout 0.5 --held-out-n 408 --held-out-errors 61

A bound is vacuous where it is no less than the largest loss. "useful from n" is the least sample
size at which it is not, all else fixed. Each bound holds with probability 1 - delta by itself; the
least of several does not. For the held-out rows "useful from n" counts unseen examples.
"""

_OPTIONS: tuple[tuple[str, float | None, str], ...] = (
    ("n", None, "sample size"),
    ("dropout", None, "mask rate p in [0, 1]"),
    ("delta", 0.05, "failure probability"),
    ("lipschitz", 1.0, "Lipschitz constant of the plain loss of one example, without the penalty"),
    ("curvature", 0.0, "least eigenvalue of the Hessian at the optimum"),
    ("regularization", 1.0, "lambda of Eq. 11"),
    ("loss_range", 1.0, "C; losses lie in [0, C]"),
    ("empirical_risk", 0.0, "training risk"),
)
_OPTIONAL = (
    ("regularized_lipschitz", "that of the regularised loss of one example: adds Thm 4.4"),
    ("squared_norm", "norm(A-A0)^2 + norm(B-B0)^2: adds PAC-Bayes (with --width)"),
    ("width", "noise width s of PAC-Bayes, fixed before the data"),
    ("feldman_vondrak_constant", "the constant that Feldman and Vondrak 2019 leave unnamed"),
    ("held_out_n", "number of unseen examples: adds held-out bounds"),
    ("held_out_errors", "mistakes among them"),
    ("held_out_risk", "their mean loss, where it is not the 0-1 loss"),
)


def add_parser(commands: Any) -> None:
    """Add the command to the parser.

    Args:
        commands: what `argparse.ArgumentParser.add_subparsers` returned.
    """
    parser = commands.add_parser(
        "bound",
        help="all bounds for one problem, side by side",
        description="Bound the risk in every way that the numbers given allow.",
        epilog=_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, default, text in _OPTIONS:
        given = f" (default {default})" if default is not None else ""
        parser.add_argument(
            _flag(name),
            type=float,  # 1e12 is a sample size too
            default=default,
            required=default is None,
            metavar="X",
            help=text + given,
        )
    for name, text in _OPTIONAL:
        parser.add_argument(_flag(name), type=float, metavar="X", help=text)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def run(arguments: argparse.Namespace) -> int:
    """Print the comparison.

    Args:
        arguments: the parsed options.

    Returns:
        Exit status 0.
    """
    names = [name for name, *_ in _OPTIONS] + [name for name, _ in _OPTIONAL]
    problem = {name: getattr(arguments, name) for name in names}
    print(comparison(compare_bounds(**problem), problem["loss_range"]))
    return 0


def comparison(rows: Comparison, loss_range: float) -> str:
    """The table and what it says.

    Args:
        rows: the bounds.
        loss_range: C.

    Returns:
        Several lines.
    """
    width = max(len(row.name) for row in rows)
    lines = [f"{'bound on the risk':<{width}}  {'value':>12}  {'':<8}  {'useful from n':>13}"]
    for row in rows:
        value = float(np.asarray(row.result.value))
        mark = "VACUOUS" if row.result.vacuous else ""
        lines.append(
            f"{row.name:<{width}}  {value:>12.6g}  {mark:<8}  {_size(row.nonvacuous_from):>13}"
        )
    lines += ["", "assumed without a check:"]
    indent = " " * (width + 4)
    for row in rows:
        text = f"  {row.name:<{width}}  {', '.join(row.unchecked)}"
        lines.append(textwrap.fill(text, 110, subsequent_indent=indent))
    if rows.left_out:
        lines += ["", "left out:"]
        for name, reason in rows.left_out.items():
            lines.append(textwrap.fill(f"  {name}: {reason}", 110, subsequent_indent=indent))
    vacuous = [row.name for row in rows if row.result.vacuous]
    lines.append("")
    if vacuous:
        lines.append(f"vacuous (at least C = {loss_range:g}): {'; '.join(vacuous)}")
    else:
        lines.append(f"none is vacuous (all below C = {loss_range:g})")
    return "\n".join(lines)


def _size(n: float) -> str:
    return f"{n:,.0f}" if math.isfinite(n) else "never"
