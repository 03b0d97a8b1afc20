"""What a proof is here, and the two engines that check its steps.

A step is checked by a machine or it is marked as argued: `Argument` keeps the two apart. sympy
checks identities (the difference of both sides is the zero polynomial or zero rational function);
z3 checks implications between polynomial inequalities over the reals (the negation has no model).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Z3_SECONDS = 20.0


@dataclass(frozen=True)
class Proof:
    """The outcome of one proof run.

    Attributes:
        holds: True when every checked step passed.
        method: The engines used, for instance ``"sympy"`` or ``"sympy + z3"``.
        statement: What is proved, with its assumptions and what was encoded.
        steps: One line a step: ``[sympy] ...: ok`` (or ``FAILED``), ``[z3] ...: ok``,
            ``[argued] ...``.
    """

    holds: bool
    method: str
    statement: str
    steps: tuple[str, ...]


def require_z3() -> Any:
    """Import z3, or say which extra brings it.

    Returns:
        The z3 module.

    Raises:
        ImportError: z3 is not installed.
    """
    try:
        import z3
    except ImportError as error:
        raise ImportError(
            "this proof needs z3: install the extra 'proofs' (pip install 'lora-dropout[proofs]')"
        ) from error
    return z3


def is_zero(expression: Any) -> bool:
    """Whether a sympy expression or matrix is identically zero.

    Args:
        expression: A sympy expression, or a matrix of them, rational in its symbols.

    Returns:
        True when every entry cancels to exactly 0.

    Examples:
        >>> import sympy
        >>> x = sympy.Symbol("x")
        >>> is_zero((x + 1) ** 2 - x**2 - 2 * x - 1), is_zero(x)
        (True, False)
    """
    import sympy

    entries = list(expression) if isinstance(expression, sympy.MatrixBase) else [expression]
    return all(sympy.expand(e) == 0 or sympy.cancel(sympy.together(e)) == 0 for e in entries)


def entails(hypotheses: Sequence[Any], conclusion: Any) -> bool | None:
    """Whether real-arithmetic hypotheses entail a conclusion.

    The hypotheses must also have a model, so that nothing is "proved" from a contradiction.

    Args:
        hypotheses: z3 formulas.
        conclusion: A z3 formula.

    Returns:
        True: entailed. False: there is a counter-model, or the hypotheses contradict each other.
        None: z3 did not decide in time (`unknown` is never a proof).
    """
    z3 = require_z3()

    def decide(formulas: Sequence[Any]) -> Any:
        solver = z3.Solver()
        solver.set("timeout", int(1000 * Z3_SECONDS))
        solver.add(*formulas)
        return solver.check()

    consistent = decide(hypotheses)
    negation = decide([*hypotheses, z3.Not(conclusion)])
    if consistent == z3.unsat or negation == z3.sat:
        return False
    return True if consistent == z3.sat and negation == z3.unsat else None


class Argument:
    """Collects the steps of one proof and remembers whether each held."""

    def __init__(self, statement: str) -> None:
        self._statement = statement
        self._steps: list[str] = []
        self._engines: list[str] = []
        self._holds = True

    def _record(self, engine: str, text: str, outcome: bool | None) -> None:
        verdict = {True: "ok", False: "FAILED", None: "UNDECIDED"}[outcome]
        self._steps.append(f"[{engine}] {text}: {verdict}")
        if engine not in self._engines:
            self._engines.append(engine)
        self._holds = self._holds and outcome is True

    def zero(self, text: str, expression: Any) -> None:
        """Check that an expression (or each entry of a matrix) is identically zero.

        Args:
            text: The step in words.
            expression: Left side minus right side.
        """
        self._record("sympy", text, is_zero(expression))

    def check(self, text: str, outcome: bool, *, engine: str = "sympy") -> None:
        """Record a fact that was decided elsewhere (a limit, a sign, a sum of exact fractions).

        Args:
            text: The step in words.
            outcome: Whether it held.
            engine: What decided it.
        """
        self._record(engine, text, bool(outcome))

    def implies(self, text: str, hypotheses: Sequence[Any], conclusion: Any) -> None:
        """Check by z3 that the hypotheses are consistent and entail the conclusion.

        Args:
            text: The step in words.
            hypotheses: z3 formulas.
            conclusion: A z3 formula.
        """
        self._record("z3", text, entails(hypotheses, conclusion))

    def argued(self, text: str) -> None:
        """Note a step that no machine checks (a change of variables, a theorem that is cited).

        Args:
            text: The step in words.
        """
        self._steps.append(f"[argued] {text}")

    def done(self) -> Proof:
        """Close the argument.

        Returns:
            The proof; it holds when at least one step was checked and every checked step held.
        """
        method = " + ".join(sorted(self._engines)) or "none"
        return Proof(
            self._holds and bool(self._engines), method, self._statement, tuple(self._steps)
        )
