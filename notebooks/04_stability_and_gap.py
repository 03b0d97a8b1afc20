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
# # Stability and gap
#
# The bounds go through stability: how much does the loss at an example change when it is left out?
# In ridge regression this is exact; on digits it takes retraining. And where does the gap fall
# with p, as the paper says, and where does it turn?

# %%
import numpy as np
import torch
from interactive import BLUE, FAST, GREEN, ORANGE, RED, explore, new_figure, show, use_style
from ipywidgets import FloatLogSlider, FloatSlider
from matplotlib import pyplot as plt

from lora_bounds import critical_ratio, leave_one_out, marchenko_pastur, regime_map, uniform_stability
from lora_bounds.problems import make_regression
from lora_bounds.exact.ridge_regimes import ridge_risks

use_style()

# %% [markdown]
# ## Exact stability
# Leaving out each of n examples costs one pass over the hat matrix, not n fits.

# %%
sizes, rng = (10, 30, 100, 300, 1000), np.random.default_rng(0)
x, y = rng.uniform(-1, 1, (1000, 3)) / np.sqrt(3), rng.uniform(-1, 1, 1000)
exact = [leave_one_out(inputs=x[:n], targets=y[:n], regularization=1.0, dropout=0.5).hypothesis_stability
         for n in sizes]
radius = (0.5 / 0.75) ** 0.5  # of the solutions: the objective at 0 is at most 1/2
bound = uniform_stability(n=np.array(sizes), lipschitz=1 + radius, regularization=1.0, dropout=0.5).value
figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
axis.loglog(sizes, bound, color=RED, label="repaired bound")
axis.loglog(sizes, exact, "k.-", label="exact")
axis.set(xlabel="examples n", ylabel="stability")
axis.legend()
show(figure)
slope = np.polyfit(np.log(sizes), np.log(exact), 1)[0]
print(f"exact stability falls like n^{slope:.2f}")
assert np.all(exact <= bound) and abs(slope + 1) < 0.2

# %% [markdown]
# It falls like 1/n, and the repaired bound is never below it.
#
# ## The same by retraining
# A two-layer network with masks on, trained anew without each of some examples, all at once
# (`leave_one_out` of `lora_dropout.probes.retraining` trains the replicas as one batch).

# %%
from lora_dropout import FitConfig, LoRADropoutConfig, adapt
from lora_dropout.probes.retraining import leave_one_out as retrain

torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
adapt(network, LoRADropoutConfig(rank=2, alpha=4, dropout=0.5), generator=torch.Generator().manual_seed(1))
inputs = torch.randn(256, 6, dtype=torch.float64)
labels = inputs[:, :3].argmax(dim=1)
how = FitConfig(epochs=60, batch_size=64, learning_rate=0.03, n_instances=4, regularization=0.3)
found = {n: [retrain(network, (inputs[k : k + n], labels[k : k + n]), config=how, examples=range(0, n, n // 8), progress=False)
             for k in range(0, 64 * (1 if FAST else 4), 64)] for n in (16, 64)}
for n, samples in found.items():
    loss, noise = ([getattr(s, kind).absolute for s in samples] for kind in ("loss", "noise"))
    print(f"n = {n}: beta over {len(samples)} samples {min(loss):.2g} to {max(loss):.2g}, another seed alone {np.mean(noise):.2g}")
    assert np.mean(noise) > np.mean(loss) / 10

# %% [markdown]
# Beside each stands what another seed alone does: where the two are of one size, few samples say
# little about stability. [The gallery](../paper_figures/gallery/stability.csv) has digits over 32 samples.
#
# ## Without retraining
# One Newton step from the solution predicts the same changes (influence functions, Koh and Liang
# 2017). Beside the retrained ones above, for the first sample of each size:

# %%
from lora_dropout.probes.adapter_objective import AdapterObjective
from lora_dropout.probes.influence import agreement, influence

for n, (first, *_) in found.items():
    start, solution = torch.from_numpy(first.start), torch.from_numpy(first.full[0])
    objective = AdapterObjective(network, (inputs[:n], labels[:n]), weight=first.weight, center=start)
    predicted = influence(objective, solution, damping=0.1, examples=first.examples.tolist())
    close = agreement(predicted.changes, first.loss.values[0])
    print(f"n = {n}: correlation {close.correlation:.2f}, error {close.relative_error:.2f} of the change")
    assert close.correlation > 0.5

# %% [markdown]
# The step ranks the examples as retraining does; how large a change is, it knows roughly.


# %% [markdown]
# ## Where does the gap fall with p?
# Ridge with isotropic Gaussian inputs, exactly: noise-to-signal ratio, examples per input n/d, and
# lambda decide. Move the sliders until the curve turns.


# %%
def picture(noise_to_signal, examples_per_input, regularization):
    rates = np.linspace(0.01, 1, 100)
    weights = 2 * regularization * (2 * rates - rates**2)
    spectrum = marchenko_pastur(aspect=examples_per_input)
    risks = ridge_risks(spectrum=spectrum, weight=weights, signal_power=1.0, noise_variance=noise_to_signal)
    figure, axis = new_figure(size=(6, 3.4))
    axis.plot(rates, risks.train, "--", color=BLUE, label="training risk")
    axis.plot(rates, risks.test, color=GREEN, label="test risk")
    axis.plot(rates, risks.gap, color=RED, label="gap")
    edge = critical_ratio(spectrum=spectrum, regularization=regularization).ratio
    axis.set(xlabel="dropout rate p", title=f"the gap turns up below noise/signal = {max(edge, 0):.3f}")
    axis.legend()
    return figure


# %%
box = explore(picture, {"noise_to_signal": FloatSlider(0.1, min=0, max=2),
                        "examples_per_input": FloatLogSlider(4, min=-0.7, max=1.5),
                        "regularization": FloatLogSlider(0.5, min=-2, max=1)})

# %% [markdown]
# ## The regime map
# Share of rates p at which the gap *rises* (yellow: everywhere). Above the boundary T1 holds.

# %%
aspects, noises = np.logspace(-0.7, 1.3, 9 if FAST else 25), np.linspace(0, 0.5, 6 if FAST else 21)
grid = regime_map(aspects=aspects.tolist(), regularizations=[0.5], noise_to_signal=noises.tolist())
share = np.nan_to_num((grid.rise_end - grid.rise_start)[:, 0])
figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
mesh = axis.pcolormesh(aspects, noises, share.T, cmap="cividis", shading="nearest")
axis.plot(aspects, np.maximum(grid.critical[:, 0], 0), color=ORANGE, label="boundary")
axis.set(xscale="log", xlabel="examples per input n/d", ylabel="noise / signal")
axis.legend(labelcolor="white")
figure.colorbar(mesh, label="share of p where the gap rises")
show(figure)
print(f"highest boundary on this grid: {grid.critical.max():.3f}")
assert grid.critical.max() <= 1 / 3 and share[:, -1].max() == 0

# %% [markdown]
# Noise of half the signal's power is enough for the gap to fall with p everywhere on this grid; clean
# signals with several examples per input are where it rises. Proof status:
# [T1 and Audit 9](../EQUATIONS.md).
