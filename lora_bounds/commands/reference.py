"""The way from a paper item to its code: the page of one claim, and the map of them all."""

import ast
import importlib
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lora_bounds.trial.claim import Claim, Outcome, Verdict

ROOT, TESTS = Path(__file__).resolve().parents[2], "tests/lora_bounds"
EQUATIONS_HEADER = """# Equations: from the paper to the code

Written by `lora-bounds equations > EQUATIONS.md` from the claims' pages and the tests' marks; a
test keeps it current.
Items are those of arXiv 2404.09610 v1 unless another source is named; T1 to T5 are its predicted
trends, "Audit" items are this project's findings about it. Functions are below `lora_bounds`, tests
below `tests/lora_bounds`. `lora-bounds show "<claim>"` prints the evidence of one claim;
`lora-bounds verify` runs all of it. "Digits" claims rest on measurements, of one base, over random
runs crossed with random test examples: any of their verdicts is wrong with probability at most 0.05
(`claims.measured.on_digits`).
"""


@cache
def marked_tests() -> Mapping[str, tuple[str, ...]]:
    """The tests of each claim: those marked ``@pytest.mark.claim("Prop 4.2")``, read as text.

    Returns:
        Map from a claim's id to ``file::test`` names below `TESTS`; empty where the tests are not,
        as in an installed package.
    """
    found = defaultdict(list)
    for file in sorted((ROOT / TESTS).rglob("test_*.py")):
        nodes = ast.walk(ast.parse(file.read_text()))
        for node in (node for node in nodes if isinstance(node, ast.FunctionDef)):
            for call in node.decorator_list:
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.claim":
                    for argument in call.args:
                        name = f"{file.relative_to(ROOT / TESTS).as_posix()}::{node.name}"
                        found[ast.literal_eval(argument)].append(name)
    return {claim: tuple(names) for claim, names in found.items()}


def page(claim: Claim, outcome: Outcome, *, related: Sequence[Claim] = (), width: int = 100) -> str:
    """Everything about one claim.

    Args:
        claim: the claim.
        outcome: what its evidence said.
        related: other claims about the same paper item.
        width: where to break lines.

    Returns:
        Several lines.
    """
    under = f" ({'; '.join(claim.extra_assumptions)})" if claim.extra_assumptions else ""
    verdict = f"{outcome.verdict}{under if outcome.verdict == Verdict.HOLDS_UNDER else ''}"
    if outcome.verdict != claim.recorded:
        verdict += f"; recorded: {claim.recorded}"
    lines = [f"{claim.id}  ({claim.paper_item})", f"  {claim.statement}", ""]
    lines += [f"formula     {claim.formula}", f"verdict     {verdict}"]
    lines += _listed("assumes", claim.assumptions or ("nothing further",))
    lines += _listed("theorem", (claim.theorem,) if claim.theorem else ())
    lines += _listed("page", (_file(f"lora_bounds.{claim.page}"),))
    lines += _listed("coded in", tuple(f"lora_bounds.{name}" for name in claim.functions))
    lines += _listed("tested in", tuple(f"{TESTS}/{name}" for name in _tests(claim)))
    lines.append("evidence")
    for piece, line, found in zip(claim.evidence, outcome.details, outcome.findings, strict=True):
        lines.append(f"  {line}")
        if piece.code is not None:
            lines.append(f"      in {_file(piece.code.__module__)}::{piece.code.__name__}")
        facts = []
        if found.margin is not None:
            facts.append(f"margin {found.margin:+.3g}")
        if found.error_probability is not None:
            facts.append(f"error probability {found.error_probability:.2g}")
        lines += [f"      {', '.join(facts)}"] if facts else []
        lines += [f"      {step}" for step in found.details]
    lines += _listed(
        "controls", tuple(f"{c.name}: {c.statement}, which is false" for c in claim.controls)
    )
    lines += _listed("see also", tuple(other.id for other in related))
    return "\n".join(_wrap(line, width) for line in lines)


def _file(module: str) -> str:
    return f"{module.replace('.', '/')}.py"


def _tests(claim: Claim) -> tuple[str, ...]:
    return marked_tests().get(claim.id, ())


def _wrap(line: str, width: int) -> str:
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    fill = textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False)
    return fill or line


def _listed(head: str, items: Sequence[str]) -> list[str]:
    return [f"{head if i == 0 else '':<12}{item}" for i, item in enumerate(items)]


def resolve(name: str) -> Any:
    """Find a function by its dotted name below `lora_bounds`.

    Args:
        name: such as ``"bounds.sparsity.drop_probability"``.

    Returns:
        The function or class.

    >>> resolve("bounds.sparsity.drop_probability")(dropout=0.5)
    0.75
    """
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(f"lora_bounds.{module}"), attribute)


def equations(claims: Sequence[Claim]) -> str:
    """The text of EQUATIONS.md.

    Args:
        claims: those to list.

    Returns:
        Markdown.
    """
    lines = [
        EQUATIONS_HEADER,
        "| paper item | claim | statement | function | test | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for claim in claims:
        verdict = str(claim.recorded)
        if claim.recorded == Verdict.HOLDS_UNDER:
            verdict += f": {'; '.join(claim.extra_assumptions)}"
        cells = (
            claim.paper_item,
            claim.id,
            claim.statement,
            "<br>".join(f"`{name}`" for name in claim.functions),
            "<br>".join(f"`{name}`" for name in _tests(claim)),
            verdict,
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
