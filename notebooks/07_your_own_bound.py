# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Test a bound of your own
#
# Write a bound, let the toolkit draw problems for it, and watch it find the flaw and shrink it to
# numbers that can be checked by hand.

# %%
import numpy as np
from hypothesis import find, given, settings
from interactive import use_style

from lora_bounds import Assumption, BoundResult, lemma_4_3, theorem_4_4
from lora_bounds.trial.search import Inequality, search
from lora_bounds.exact.ridge import leave_one_out
from lora_bounds.strategies import problem_constants

use_style()

# %% [markdown]
# ## A claim about ridge regression
# "Leaving out an example changes its loss by at most L²/(2 lambda q n)", with L the largest slope
# *seen on the sample at the solution*. With a slope that holds wherever solutions can be this is the
# repaired proposition; this one is too local. A claim is two sides and a way to draw problems.


# %%
def draw(rng):
    return {"x": rng.uniform(-1, 1, 3).tolist(), "y": rng.uniform(-1, 1, 3).tolist(), "weight": 10 ** rng.uniform(-3, 0)}


def sides(problem):
    x, y = np.array(problem["x"], float)[:, None], np.array(problem["y"], float)
    weight = float(problem["weight"])
    found = leave_one_out(inputs=x, targets=y, regularization=weight, dropout=1.0)
    solution = float((x[:, 0] @ y / 3) / (x[:, 0] @ x[:, 0] / 3 + 2 * weight))
    slope = float(np.max(np.abs(x[:, 0] * (y - x[:, 0] * solution))))
    return found.hypothesis_stability, slope**2 / (2 * weight * 3)


# %%
def in_domain(problem):
    return len(problem["x"]) == len(problem["y"]) == 3 and problem["weight"] > 0


claim = Inequality("local slope", "stability <= slope^2/(2 weight n)", draw, sides, in_domain)
result = search(claim, trials=3000, seed=0)
print(f"violated in {result.violations} of {result.trials} problems")
print("worst, shrunk:", {k: v if not isinstance(v, list) else [str(t) for t in v] for k, v in result.problem.items()})
print(f"left {result.lhs:.4g}, right {result.rhs:.4g}")
assert result.refuted and result.violations < 0.05 * result.trials

# %% [markdown]
# It fails rarely, but it fails: the shrunk problem is the referee's counterexample. Solutions move
# further than the slope at one of them tells. A coarser flaw is caught at once:

# %%
tenth = Inequality("a tenth", claim.statement, draw, lambda p: (sides(p)[0], sides(p)[1] / 10), in_domain)
caught = search(tenth, trials=500, seed=0)
print(f"a tenth of the bound: violated in {caught.violations} of 500")
print({k: v if not isinstance(v, list) else [str(t) for t in v] for k, v in caught.problem.items()})
assert caught.refuted and caught.margin < 0


# %% [markdown]
# ## With Hypothesis
# The public strategies draw constants, problems and losses, reach limits on their own, and shrink.
# A bound "as good as Thm 4.4 with twice the examples":


# %%
def my_bound(c):
    return theorem_4_4(**{**c.arguments(theorem_4_4), "n": 2 * c.n}).value


@settings(derandomize=True, database=None, max_examples=200)
@given(problem_constants(loss_range=(0.1, 2.0)))
def never_looser(c):
    assert my_bound(c) <= theorem_4_4(**c.arguments(theorem_4_4)).value


never_looser()
print("tighter than Thm 4.4 in 200 problems: which says nothing about whether it is true")

# %% [markdown]
# `find` gives the simplest problem on which something happens: where is Thm 4.4 not vacuous?

# %%
useful = find(problem_constants(loss_range=(1.0, 1.0)),
              lambda c: not bool(theorem_4_4(**c.arguments(theorem_4_4)).vacuous),
              settings=settings(database=None, derandomize=True, max_examples=2000))
print(useful)
assert not theorem_4_4(**useful.arguments(theorem_4_4)).vacuous

# %% [markdown]
# ## Returned like the others
# A `BoundResult` names its direction, confidence, source and assumptions, so that `judge` and the
# audit of a trained adapter can say which assumption is violated when a bound fails.

# %%
mine = BoundResult(value=0.3, direction="upper", confidence=0.95, source="this notebook", name="mine",
                   assumptions=(Assumption("i.i.d. sample", "examples are independent, of one law"),),
                   vacuous=False, trivial=1.0)
print(mine.name, mine.value, [a.name for a in mine.assumptions])
print(float(lemma_4_3(stability=0.0001, n=10000, delta=0.05, loss_range=1.0, empirical_risk=0.1).value))
