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
# # Is it just dropout?
#
# The bound depends on p through q = 2p - p² alone, the rate at which entries of B A are dropped. Is
# LoRA Dropout at p the same as ordinary dropout of the inputs at q? For a linear layer the answer is
# exact: yes if the inputs are uncorrelated, no if they are not.

# %%
import os
from pathlib import Path

import numpy as np
from interactive import BLUE, ORANGE, RED, explore, new_figure, show, use_style
from ipywidgets import FloatSlider
from matplotlib import pyplot as plt

from lora_bounds import drop_probability, effective_moment, minimizer

use_style()
truth = np.random.default_rng(0).standard_normal((3, 6))


# %%
def solutions(p, correlation):
    moment = np.full((6, 6), correlation) + (1 - correlation) * np.eye(6)
    settings = {"second_moment": moment, "cross_moment": truth @ moment}
    ours = minimizer(law="row_column", dropout=p, **settings)
    usual = minimizer(law="activation", dropout=float(drop_probability(dropout=p)), **settings)
    return ours, usual, moment


# %%
def distance(p, correlation):
    ours, usual, _ = solutions(p, correlation)
    return float(np.linalg.norm(ours - usual) / np.linalg.norm(truth))


for correlation in (0.0, 0.5, 0.9):
    print(f"correlation {correlation}: the two networks differ by {distance(0.5, correlation):.2g}")
assert distance(0.5, 0.0) < 1e-12 and distance(0.5, 0.9) > 0.05


# %% [markdown]
# Both minimise the training loss plus a quadratic penalty; M is the matrix of the sum. With
# S the second moment of the inputs and k = 1 - p, LoRA Dropout has M = S/k + (p/k²) diag(S),
# ordinary dropout at q has M = S + (q/(1-q)) diag(S): the first rescales the correlations too.


# %%
def picture(p, correlation):
    ours, usual, moment = solutions(p, correlation)
    figure, axes = new_figure(1, 3, size=(10, 3))
    q = float(drop_probability(dropout=p))
    ways = (("row_column", p, "LoRA Dropout at p"), ("activation", q, "dropout at 2p - p²"))
    for axis, (law, rate, name) in zip(axes, ways):
        matrix = effective_moment(law=law, second_moment=moment, dropout=rate)
        mesh = axis.imshow(matrix, cmap="cividis", vmin=0, vmax=1.2 / (1 - p) ** 2)
        axis.set(title=f"M, {name}", xticks=[], yticks=[])
    figure.colorbar(mesh, ax=axes[1])
    axes[2].scatter(ours.ravel(), usual.ravel(), color=RED)
    axes[2].axline((0, 0), slope=1, color="black", linewidth=0.8)
    axes[2].set(xlabel="LoRA Dropout", ylabel="dropout", title="entries")
    return figure


# %%
box = explore(picture, {"p": FloatSlider(0.5, min=0, max=0.95), "correlation": FloatSlider(0.6, min=0, max=0.95)})

# %% [markdown]
# ## How correlated are real inputs?
# The inputs of the adapted layers of the digits transformer: an example of what a LoRA layer sees.

# %%
import torch

from lora_dropout.tasks.digits import digits_target, pretrain_digits

model = pretrain_digits(epochs=3, progress=False)
seen = {}
for name, layer in model.named_modules():
    if isinstance(layer, torch.nn.Linear) and name.startswith("blocks"):
        layer.register_forward_hook(lambda _, x, y, name=name: seen.update({name: x[0].flatten(0, -2)}))
with torch.no_grad():
    model(digits_target(seed=0).test[0])

# %%
def correlation(x: torch.Tensor) -> float:
    """Mean absolute correlation of two inputs, uncentred; x has shape (tokens, inputs)."""
    moment = (x.T @ x / len(x)).double()
    scale = moment.diag().clamp_min(1e-12).sqrt()
    off = (moment / scale[:, None] / scale[None]).fill_diagonal_(0)
    return float(off.abs().sum() / (len(off) * (len(off) - 1)))


correlations = {name: correlation(x) for name, x in seen.items()}

# %%
figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
axis.barh(list(correlations), list(correlations.values()), color=BLUE)
axis.set_xlabel("mean absolute correlation (uncentred) of two inputs")
show(figure)
print(f"between {min(correlations.values()):.2f} and {max(correlations.values()):.2f}")
assert min(correlations.values()) > 0.05

# %% [markdown]
# Real inputs are correlated, so the two methods are not the same there. The same on a pretrained
# encoder, where one is at hand (`LORA_DROPOUT_TEST_FILES` names its folder):

# %%
files = Path(os.environ.get("LORA_DROPOUT_TEST_FILES") or "nowhere")
if (files / "models").is_dir():
    from transformers import AutoModel, AutoTokenizer

    from lora_dropout.tasks.catalogue import find_task

    folder = files / "models" / "all-MiniLM-L6-v2-fp16"
    texts = find_task("sst2").load(files / "data" / "glue")["dev"][:64]["sentence1"]
    encoder = AutoModel.from_pretrained(folder).float().eval()
    tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = encoder(**tokens, output_hidden_states=True).hidden_states[3]
    print(f"encoder, layer 3: {correlation(states[tokens['attention_mask'].bool()]):.2f}")
else:
    print("no encoder here")
