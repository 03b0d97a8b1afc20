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
# # What does the bound say?
#
# Thm 4.4 bounds the risk of LoRA Dropout by the training risk plus a term that shrinks with n and
# with the sparsity q = 2p - p². Move the sliders: which bound is the least, which says nothing
# (grey: above what is known anyway, that losses are at most C), and how many examples would it
# need? Assumptions are listed in [EQUATIONS.md](../EQUATIONS.md) and by `lora-bounds show "Thm 4.4"`.

# %%
import numpy as np
from interactive import BLUE, GREEN, GREY, ORANGE, RED, explore, new_figure, use_style
from ipywidgets import FloatLogSlider, FloatSlider

from lora_bounds import compare_bounds, least_delta, theorem_4_4

use_style()
COLORS = (RED, ORANGE, GREEN, BLUE, "#CC79A7", GREY, "black", "#56B4E9")

# %% [markdown]
# All bounds for one setting. `nonvacuous_from` is the least n at which a bound says something, all
# else equal.

# %%
constants = {"delta": 0.05, "dropout": 0.5, "lipschitz": 1.0, "curvature": 0.0,
             "regularization": 1.0, "loss_range": 1.0, "empirical_risk": 0.1}
# n: the size of MRPC's training set; the slope 1 is that of the plain and of the regularised loss
rows = compare_bounds(n=3668, regularized_lipschitz=1.0, held_out_n=3668, held_out_risk=0.1, **constants)
for row in rows:
    mark = "vacuous" if row.result.vacuous else "       "
    print(f"{row.name:42} {float(row.result.value):8.3f} {mark} from n = {row.nonvacuous_from:g}")
by_name = {row.name: row.nonvacuous_from for row in rows}
assert min(by_name["Feldman-Vondrak 2018"], by_name["Bousquet-Klochkov-Zhivotovskiy 2020"]) > 210
assert max(by_name["Bousquet-Elisseeff 2002"], by_name["Lemma 4.3, uniform stability"]) < 210
assert not rows[0].result.vacuous and rows[0].nonvacuous_from == 210


# %% [markdown]
# The printed theorem says something from n = 210 on here. Bounds that are sharper in their rate
# (Feldman-Vondrak, Bousquet-Klochkov-Zhivotovskiy) need more examples, not fewer; those by uniform
# stability need fewer. The last row is the yardstick: what a
# held-out set of the same size with the same mean loss gives, without any theory of dropout.
#
# ## Move it


# %%
def picture(n, p, regularization, lipschitz, curvature, delta, C):
    figure, axis = new_figure(size=(7, 4))
    sizes = np.unique(np.logspace(1, 6, 25).astype(int))
    settings = {"delta": delta, "dropout": p, "lipschitz": lipschitz, "curvature": curvature,
                "regularized_lipschitz": lipschitz, "regularization": regularization, "loss_range": C,
                "empirical_risk": 0.1 * C, "held_out_risk": 0.1 * C}
    tables = [compare_bounds(n=int(size), held_out_n=int(size), **settings) for size in sizes]
    names, lines = [row.name for row in tables[0]], [[float(r.result.value) for r in t] for t in tables]
    for name, line, color in zip(names, zip(*lines), COLORS):
        axis.loglog(sizes, line, color=color, label=name)
    axis.axhspan(C, 1e6, color="grey", alpha=0.2, linewidth=0)
    axis.axvline(n, color="black", linewidth=0.8)
    axis.set(xlabel="examples n", ylabel="bound on the risk", ylim=(0.05 * C, 100 * C))
    axis.legend(fontsize=7)
    return figure


# %%
box = explore(picture, {
    "n": FloatLogSlider(3668, min=1, max=6), "p": FloatSlider(0.5, min=0.01, max=1),
    "regularization": FloatLogSlider(1, min=-3, max=2), "lipschitz": FloatLogSlider(1, min=-2, max=2),
    "curvature": FloatSlider(0, min=0, max=2), "delta": FloatLogSlider(0.05, min=-6, max=-0.01),
    "C": FloatLogSlider(1, min=-1, max=1)})

# %% [markdown]
# ## The price of confidence
# The bound pays 1/delta under its root, where bounds by uniform stability pay a logarithm. Below
# some delta it is vacuous at any p:

# %%
least = least_delta(n=3668, loss_range=1.0, empirical_risk=0.1)
print(f"at n = 3668 the bound is vacuous for every delta up to {least:.2g}, whatever p")
terms = [theorem_4_4(n=3668, **{**constants, "delta": d}).value - 0.1 for d in (0.1, 0.001)]
print(f"from delta = 0.1 to 0.001 the term grows {terms[1] / terms[0]:.1f} times")
assert abs(terms[1] / terms[0] - 10) < 1e-6

# %% [markdown]
# A hundredfold confidence costs a factor of ten: compare
# [Audit 7](../EQUATIONS.md). Next: [stability and gap](04_stability_and_gap.ipynb).
