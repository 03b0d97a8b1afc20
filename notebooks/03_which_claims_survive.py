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
# # Which claims survive?
#
# Every claim of the paper stands in a ledger with evidence that runs: a machine-checked proof, a
# numeric sweep, a counterexample in exact arithmetic, or a measurement of trained adapters. The
# verdict follows from the evidence alone ([EQUATIONS.md](../EQUATIONS.md) is the same as a table).

# %%
from collections import Counter
from fractions import Fraction

import numpy as np
from interactive import BLUE, RED, show, use_style
from matplotlib import pyplot as plt

from lora_bounds import counterexamples
from lora_bounds.claims import all_claims, find_claims

use_style()

# %%
claims = all_claims()
print(len(claims), "claims:", dict(Counter(str(claim.recorded) for claim in claims)))
for claim in claims:
    if claim.recorded == "REFUTED":
        print(f"- {claim.id:32} {claim.statement}")

# %% [markdown]
# Evidence can be run, one claim at a time (`lora-bounds verify` runs all, in about a minute):

# %%
(claim,) = find_claims("T1")
outcome = claim.verify()
print(outcome.verdict, *outcome.details, sep="\n")
assert outcome.verdict == claim.recorded

# %% [markdown]
# ## Every counterexample, replayed
# Each is a few small numbers; the steps can be followed by hand.

# %%
for name in counterexamples.ids():
    example = counterexamples.load(name)
    result = counterexamples.replay(example)
    print(f"{name}\n  claim: {example.statement}\n  left {result.lhs:.4g} > right {result.rhs:.4g}")
    assert result.refutes

# %% [markdown]
# ## One of them as a picture: the gap turns up
# "The expected gap shrinks as p grows" (T1). Ridge regression without noise, every sample
# enumerated:

# %%
example = counterexamples.load("gap-turns-up")
print(*counterexamples.replay(example).steps, sep="\n")


# %%
def gap(p):
    weight = 2 * float(example.data["regularization"]) * (2 * p - p * p)  # of the penalty
    points = np.array(example.data["atoms"], float)
    samples = points[np.stack(np.meshgrid(*[range(len(points))] * example.data["n"], indexing="ij"), -1)]
    x, y = samples.reshape(-1, example.data["n"], 2).transpose(2, 0, 1)
    slope = (x * y).mean(1) / ((x * x).mean(1) + weight)
    train = ((y - slope[:, None] * x) ** 2).mean(1) / 2
    test = ((points[:, 1] - slope[:, None] * points[:, 0]) ** 2).mean(1) / 2
    return float((test - train).mean())


# %%
rates = np.linspace(0, 1, 101)
gaps = [gap(p) for p in rates]
figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
axis.plot(rates, gaps, color=RED)
axis.set(xlabel="dropout rate p", ylabel="expected gap", yscale="log")
show(figure)
print(f"gap at p = 0: {gap(0):.4f}; at p = 1/2: {gap(0.5):.4f}; at p = 1: {gap(1):.4f}")
assert abs(gap(0.5) - 17 / 1225) < 1e-12 and abs(gap(1) - 7 / 432) < 1e-12 and gap(1) > gap(0.5) < gap(0)

# %% [markdown]
# The gap falls steeply at first, but is larger at p = 1 than at p = 1/2. With enough noise T1 holds: the
# regime map is in [the next notebook](04_stability_and_gap.ipynb).
#
# ## The ensemble can lose to one network
# A.3's first step needs convexity in the *outputs*; the paper argues in the parameters.

# %%
result = counterexamples.replay(counterexamples.load("ensemble-vs-mask-free"))
print(*result.steps, sep="\n")
assert (Fraction(result.lhs), Fraction(result.rhs)) == (Fraction(9, 32), 0)
