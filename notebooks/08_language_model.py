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
# # A language model, from training to a measured bound
#
# LoRA Dropout on a Hugging Face model through PEFT: three changed lines in a PEFT script. Name a
# model and a GLUE task below, from the hub or in local folders; the committed run used local files
# (`LORA_DROPOUT_TEST_FILES` names their folder). With no model named, it runs on a tiny BERT with
# random weights and sentences made here, which shows the way but learns little.

# %%
import os
import warnings
from pathlib import Path

import torch
import transformers
from interactive import FAST, use_style
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

from lora_dropout import predict, sample_masks
from lora_dropout.peft import attach, detach
from lora_dropout.training.objective import instance_loss
from lora_dropout.tasks.catalogue import find_task

# %%
warnings.filterwarnings("ignore", category=FutureWarning)  # transformers' own renames
transformers.logging.set_verbosity_error()  # the new classifier is meant to be new
transformers.logging.disable_progress_bar()
use_style()
torch.manual_seed(0)
MODEL, DATA = None, None  # such as "microsoft/deberta-v3-base"; a folder of GLUE, or None for the hub
files = Path(os.environ.get("LORA_DROPOUT_TEST_FILES") or "nowhere")
if MODEL is None and (files / "models").is_dir() and not FAST:
    MODEL, DATA = files / "models" / "all-MiniLM-L6-v2-fp16", files / "data" / "glue"

# %% [markdown]
# ## Data and base model
# SST-2: is a sentence of a film review positive?


# %%
def from_task(name, n, n_test):
    task, tokenizer = find_task(name), AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=len(task.labels), **off).float()
    splits, parts = task.load(DATA), []
    for split, size in (("train", n), ("dev", n_test)):
        rows = splits[split].shuffle(seed=0).select(range(size))
        encoded = task.encode(rows, tokenizer, max_length=80).rows
        batch = task.collator(tokenizer)(list(encoded))
        parts.append(({k: v for k, v in batch.items() if k != "labels"}, batch["labels"]))
    return model, *parts


# %% [markdown]
# Else sentences of word numbers, label 1 if words of the first half of the vocabulary prevail.


# %%
def sentences(n, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, 64, (n, 12), generator=generator)
    labels = ((tokens < 34).float().mean(dim=1) > 0.5).long()
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}, labels


# %%
off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
if MODEL is not None:
    base, train, test = from_task("sst2", 256, 400)
else:
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    base = BertForSequenceClassification(BertConfig(vocab_size=64, num_labels=2, **shape, **off))
    train, test = sentences(256, 0), sentences(400, 1)
print(f"{type(base).__name__}, {len(train[1])} training and {len(test[1])} test examples")

# %% [markdown]
# ## Three lines
# `attach` puts the masks on; everything else is PEFT. Base dropout is off, so that masks are the
# only noise.

# %%
config = LoraConfig(r=4, lora_alpha=8, target_modules=["query", "key", "value", "dense"],
                    exclude_modules=r".*(pooler|classifier).*", modules_to_save=["classifier"])
model = attach(get_peft_model(base, config), dropout=0.5, n_instances=4)  # line 1
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
model.train()
for step in range(10 if FAST else 60):
    batch = torch.arange(32 * step, 32 * step + 32) % len(train[1])
    inputs = {name: tensor[batch] for name, tensor in train[0].items()}
    optimizer.zero_grad()
    masks = sample_masks(model, n_instances=4)  # line 2
    loss = instance_loss(model, inputs, train[1][batch], masks=masks, mode="grouped")  # line 3
    loss.backward()
    optimizer.step()
print(f"masked training loss at the end: {loss.item():.3f}")

# %% [markdown]
# (With transformers' `Trainer`, `LoRADropoutTrainer` does this loop; from the shell,
# `lora-dropout train`.)
#
# ## Predict, measure
# The gap with an interval, for the ensemble and for the mean network:

# %%
from lora_dropout.probes.example_losses import ClippedCrossEntropy, example_losses
from lora_dropout.probes.gap import generalization_gap

clipped = ClippedCrossEntropy(2.0)
for mode in ("ensemble", "mean"):
    found = generalization_gap(model, train, test, loss_fn=clipped, inference=mode, seed=0, confidence=0.95)
    logits = predict(
        model, test[0], inference=mode, average="probabilities", generator=torch.Generator().manual_seed(0)
    )
    accuracy = float((logits.argmax(dim=-1) == test[1]).double().mean())
    print(f"{mode:9} accuracy {accuracy:.3f}  gap {found.gap:.3f} [{found.interval.low:.3f}, {found.interval.high:.3f}]")
    assert found.interval.low <= found.gap <= found.interval.high

# %% [markdown]
# ## A bound, and a check of it
# Half of the held-out data bound the risk, the other half check the bound. No theory of dropout is
# needed for this one. Bounds through stability need constants measured by retraining, too dear for an
# encoder on a laptop: `lora_dropout.audit` does it for adapters made by `adapt`, and
# [the gallery](../paper_figures/gallery/bounds_and_gap.csv) has its verdicts on digits.

# %%
from lora_bounds import hoeffding, judge, judgement_table

losses = example_losses(clipped, predict(model, test[0], inference="mean"), test[1])
first, second = losses[::2], losses[1::2]
bound = hoeffding(n=len(first), delta=0.05, empirical_risk=float(first.mean()), loss_range=2.0)
reach = 4 * float(second.std()) / len(second) ** 0.5
risk = (float(second.mean()) - reach, float(second.mean()) + reach)
verdict = judge(bound, empirical_risk=float(first.mean()), risk=risk, confidence=0.999)
print(judgement_table([verdict]))
assert str(verdict.status) == "holds"

# %% [markdown]
# ## Save; plain PEFT loads it
# What is saved is an ordinary adapter that computes the mean network.

# %%
import tempfile

from peft import PeftModel

expected = predict(model, test[0], inference="mean")
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    plain = PeftModel.from_pretrained(detach(model).unload(), folder).eval()
    with torch.no_grad():
        logits = plain(**test[0]).logits
print("largest difference:", float((logits - expected).abs().max()))
assert torch.allclose(logits, expected, atol=1e-5)
