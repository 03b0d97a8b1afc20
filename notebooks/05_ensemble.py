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
# # The ensemble
#
# At test time LoRA Dropout averages N masked networks. How much does it gain, from how many
# members, and against what?

# %%
import numpy as np
import torch
from interactive import BLUE, FAST, GREEN, GREY, ORANGE, RED, explore, new_figure, show, use_style
from ipywidgets import FloatSlider, IntSlider
from matplotlib import pyplot as plt

from lora_bounds import ensemble_loss, mask_variance
from lora_dropout import FitConfig, LoRADropoutConfig, adapt, evaluate, fit, sample_masks
from lora_dropout.probes.ensemble_curve import ensemble_curve, member_outputs
from lora_dropout.tasks.digits import digits_target, pretrain_digits

use_style()


# %% [markdown]
# ## Exactly V/N
# Under squared loss the ensemble's expected loss is that of infinitely many members plus V/N, V the
# variance of one member's output. For a linear layer V has a closed form.


# %%
def picture(p, N):
    rng = np.random.default_rng(0)
    b, a = rng.standard_normal((3, 2)), rng.standard_normal((2, 6))
    variance = mask_variance(law="row_column", b=b, a=a, second_moment=np.eye(6), dropout=p)
    sizes = np.arange(1, 33)
    figure, axis = new_figure(size=(6, 3.2))
    axis.plot(sizes, ensemble_loss(infinite_loss=1.0, variance=variance, n_instances=sizes), color=GREEN)
    axis.plot([N], [1 + variance / N], "o", color=RED)
    axis.axhline(1.0, color=GREY, linestyle=":")
    axis.set(xlabel="N", ylabel="expected squared loss", title=f"V = {variance:.2f}: V/N = {variance / N:.2f} too much")
    return figure


box = explore(picture, {"p": FloatSlider(0.5, min=0, max=0.99), "N": IntSlider(4, min=1, max=32)})

# %% [markdown]
# ## On digits
# Train once, draw 32 members, and take ensembles of each size from them. The band is the Monte
# Carlo error of the draws.

# %%
task = digits_target(seed=0)
model = pretrain_digits(epochs=1 if FAST else 40, progress=False)
config = LoRADropoutConfig(rank=8, alpha=16, dropout=0.5, target_modules=r"blocks\..*")
adapt(model, config, generator=torch.Generator().manual_seed(0))
how = FitConfig(epochs=1 if FAST else 60, learning_rate=1e-2, n_instances=4, schedule="constant")
fit(model, task.train, config=how, progress=False)
images, labels = task.test
masks = sample_masks(model, n_instances=32, generator=torch.Generator().manual_seed(0))
members = member_outputs(model, images, masks)
mean = evaluate(model, task.test, inference="mean")

# %% [markdown]
# How much of the update is a member without? Of the entries of B A a mask drops, by Section 4.1 of
# the paper, the share 2p - p².

# %%
from lora_dropout.probes.realised_sparsity import realised_sparsity

dropped = realised_sparsity(model, n_draws=32, generator=torch.Generator().manual_seed(0))
print(f"dropped {dropped.realised:.3f} of the entries, 2p - p² = {dropped.expected:.3f}")
assert dropped.interval.low <= dropped.expected <= dropped.interval.high

# %%
curves = {kind: ensemble_curve(members, labels, sizes=(1, 2, 4, 8, 16), average=kind)
          for kind in ("probabilities", "logits")}
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for (kind, curve), color in zip(curves.items(), (RED, ORANGE)):
    for axis, values, errors in ((axes[0], curve.loss, curve.loss_error), (axes[1], curve.ece, curve.ece_error)):
        axis.errorbar(curve.sizes, values, yerr=2 * errors, color=color, marker="o", ms=3, label=f"averages {kind}")
for axis, level, name in ((axes[0], mean["loss"], "loss"), (axes[1], mean["ece"], "calibration error")):
    axis.axhline(level, color=BLUE, linestyle="--", label="mean network")
    axis.set(xlabel="N", ylabel=f"test {name}")
axes[0].legend(fontsize=8)
show(figure)
assert np.all(np.diff(curves["probabilities"].loss) < 1e-6)

# %% [markdown]
# The loss falls with N, for averaged probabilities always (Jensen). The calibration error need not:
# averaging lowers confidence, which helps only as far as members were overconfident.
#
# ## When is the mean network as good?

# %%
best = curves["probabilities"].loss[-1]
print(f"test loss: one member {curves['probabilities'].loss[0]:.3f}, ensemble of 16 {best:.3f}, mean network {mean['loss']:.3f}")
print(f"accuracy: ensemble of 16 {curves['probabilities'].accuracy[-1]:.3f}, mean network {mean['accuracy']:.3f}")

# %% [markdown]
# How sure is that on so few test images? Bootstrap intervals over the examples:

# %%
from lora_dropout import predict
from lora_dropout.probes.quality import prediction_quality

for way in ("ensemble", "mean"):
    outputs = predict(model, images, inference=way, n_instances=16, generator=torch.Generator().manual_seed(0))
    found = prediction_quality(outputs, labels, resamples=200)
    for name in ("nll", "accuracy", "adaptive_ece"):
        one = getattr(found, name)
        print(f"{way:8} {name:12} {one.value:.3f}  [{one.interval.low:.3f}, {one.interval.high:.3f}]")

# %% [markdown]
# The mean network costs one pass instead of 16. That the ensemble is never worse than the network
# without masks is one of the claims that fall:
# [see its counterexample](03_which_claims_survive.ipynb).
