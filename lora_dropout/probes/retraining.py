"""Pointwise hypothesis stability, measured by retraining (arXiv 2404.09610 v1, Def. 4.1).

beta = E_{S,i} |l(z_i; theta(S^i)) - l(z_i; theta(S))|, S^i the sample S without z_i. A run gives
the mean over i for one sample S; the definition also takes the mean over samples.

Data order and masks move a solution as well, often further than one example does. All retrainings
share their seed; but under the convention 1/(n-1) a set of n-1 examples is shuffled otherwise than
one of n, and draws other masks, so that nothing is common after all. Under 1/n the place of z_i in
the order is kept and its loss counts 0, which leaves order and masks as they were: only the example
is gone. The noise floor, retraining on S itself with another seed, stands beside both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lora_dropout.adapters.adapt import adapter_config
from lora_dropout.adapters.use_masks import Masks, check_masks
from lora_dropout.data import Data, Inputs, LossFn, map_inputs
from lora_dropout.door import (
    Confidence,
    Count,
    check_array,
    check_indices,
    check_sequence,
    checked,
    made,
    short,
    unchecked,
)
from lora_dropout.masks.config import Inference
from lora_dropout.probes.adapter_objective import AdapterObjective, as_array
from lora_dropout.probes.example_losses import example_losses
from lora_dropout.probes.intervals import Array, Interval, t_interval
from lora_dropout.replicas import fit_replicas
from lora_dropout.replicas.replica import known_replica
from lora_dropout.seeds import check_seed, derived_seed
from lora_dropout.training.fit_config import FitConfig
from lora_dropout.training.penalty import drop_probability

Convention = Literal["1/n", "1/(n-1)"]


@dataclass(frozen=True, eq=False)
class Changes:
    """Signed changes with their means; t intervals, asymptotic.

    Attributes:
        values: Signed changes, shape (S, m).
        absolute: Mean of |values|: pointwise hypothesis stability, where values come from removal.
        absolute_interval: Of that mean, over examples (each averaged over the seeds).
        signed: Mean of values.
        signed_interval: Of that mean, over examples.
        absolute_seed_interval: Of the mean of |values|, over seeds: the mean over runs for these
            very examples. None for one seed.
        signed_seed_interval: The same for the signed mean.
    """

    values: Array
    absolute: float
    absolute_interval: Interval
    signed: float
    signed_interval: Interval
    absolute_seed_interval: Interval | None
    signed_seed_interval: Interval | None


@checked
def summarize(
    values: Annotated[Array, partial(check_array, dims=2)], confidence: Confidence
) -> Changes:
    """Take the means.

    Args:
        values: Signed changes, shape (S, m), m at least 2.
        confidence: Of the intervals.

    Returns:
        Means and intervals.
    """
    size = np.abs(values)
    several = len(values) > 1

    def interval(means: Array) -> Interval:
        return unchecked(t_interval)(means, confidence=confidence)

    return Changes(
        values=values,
        absolute=float(size.mean()),
        absolute_interval=interval(size.mean(axis=0)),
        signed=float(values.mean()),
        signed_interval=interval(values.mean(axis=0)),
        absolute_seed_interval=interval(size.mean(axis=1)) if several else None,
        signed_seed_interval=interval(values.mean(axis=1)) if several else None,
    )


@dataclass(frozen=True, eq=False)
class Stability:
    """What removing or replacing single examples does to the loss at these examples.

    Attributes:
        examples: Indices i of the m examples, shape (m,).
        seeds: The S seeds of the runs.
        loss: l(z_i; changed sample) - l(z_i; sample).
        regularized: The same for l + lambda q ||theta - theta0||^2, the loss of Lemma A.1's proof.
        noise: Changes of l(z_i; .) from retraining on the sample itself with another seed.
        distances: ||theta(changed sample) - theta(sample)||, shape (S, m).
        noise_distances: The same for the other seed, shape (S,).
        solutions: theta(changed sample), shape (S, m, P).
        full: theta(sample), shape (S, P).
        start: theta0, where training began, shape (P,).
        weight: lambda q.
        diverged: Number of runs that diverged and kept the weights from before that.
    """

    examples: NDArray[np.int64]
    seeds: tuple[int, ...]
    loss: Changes
    regularized: Changes
    noise: Changes
    distances: Array
    noise_distances: Array
    solutions: Array
    full: Array
    start: Array
    weight: float
    diverged: int


@checked
def leave_one_out(
    model: nn.Module,
    train: Data,
    *,
    config: FitConfig,
    loss_fn: LossFn = F.cross_entropy,
    examples: Sequence[int] | None = None,
    seeds: Sequence[int] = (0,),
    convention: Convention = "1/n",
    masks: Masks | Inference = "mean",
    confidence: Confidence = 0.95,
    device: str | torch.device = "auto",
    chunk_size: Count | None = None,
    checkpoint_folder: str | Path | None = None,
    progress: bool = True,
) -> Stability:
    """Retrain without each example in turn.

    Args:
        model: An adapted model; every run starts from its present factors, and it is left as it is.
        train: The sample S of n examples, n at least 2.
        config: How to train; `seed` is replaced by `seeds`.
        loss_fn: (outputs, targets) -> scalar, a mean over examples.
        examples: Which examples to remove, 2 or more; None is all. A random subset gives the mean
            over i an honest interval; all of them give it exactly for this S, and the interval is
            then a rough one for the mean over samples.
        seeds: Seeds of data order and masks.
        convention: `1/n` keeps the factor in front of the sum of losses (z_i's counts 0);
            `1/(n-1)` trains on n-1 examples, with other shuffles and masks.
        masks: Under which the loss at z_i is taken: mask-free (`mean`, `raw`), or averaged over
            given draws.
        confidence: Of the intervals.
        device: Where to train; `auto` takes a GPU if there is one.
        chunk_size: Runs at a time; None as many as seem to fit.
        checkpoint_folder: Where `fit_replicas` keeps and resumes its state.
        progress: Whether to show a progress bar.

    Returns:
        Signed and absolute changes.
    """
    inputs, targets = train
    n = len(targets)
    removed = _indices(examples, n)
    subsets: list[tuple[int, ...]] = []
    if convention == "1/n":
        # Position n holds an example that counts 0.
        inputs = map_inputs(lambda t: torch.cat([t, t[:1]]), inputs)
        weights = torch.cat([torch.ones(n), torch.zeros(1)])
        weighted = _WeightedLoss(loss_fn, targets.shape[1:])
        data = (inputs, weighted.pack(torch.cat([targets, targets[:1]]), weights))
        trained_loss: LossFn = weighted
        subsets = [_swap(n, i, (n,)) for i in removed]
    else:
        data, trained_loss = train, loss_fn
        subsets = [_swap(n, i, ()) for i in removed]
    solutions = _Retraining(
        model, config, _seeds(seeds), device, chunk_size, checkpoint_folder, progress
    )
    return solutions.compare(
        data, trained_loss, subsets, train, loss_fn, removed, masks, confidence
    )


@checked
def replace_one(
    model: nn.Module,
    train: Data,
    spares: Data,
    *,
    config: FitConfig,
    loss_fn: LossFn = F.cross_entropy,
    examples: Sequence[int] | None = None,
    seeds: Sequence[int] = (0,),
    masks: Masks | Inference = "mean",
    confidence: Confidence = 0.95,
    device: str | torch.device = "auto",
    chunk_size: Count | None = None,
    checkpoint_folder: str | Path | None = None,
    progress: bool = True,
) -> Stability:
    """Retrain with single examples replaced by fresh ones.

    The mean signed change estimates the expected generalization gap without bias: E[R - Rhat] =
    E[l(z_i; S^{i<-z'}) - l(z_i; S)] (Bousquet and Elisseeff 2002, Lemma 7). Order and masks are the
    same in all runs of a seed.

    Args:
        model: As in `leave_one_out`.
        train: The sample S of n examples.
        spares: Fresh examples z'_k from the same population; z'_k takes the place of z_{i_k}.
        config: How to train; `seed` is replaced by `seeds`.
        loss_fn: (outputs, targets) -> scalar, a mean over examples.
        examples: The indices i_k, as many as spares, 2 or more; None is the first ones.
        seeds: Seeds of data order and masks.
        masks: Under which the loss at z_i is taken.
        confidence: Of the intervals.
        device: Where to train.
        chunk_size: Runs at a time.
        checkpoint_folder: Where `fit_replicas` keeps and resumes its state.
        progress: Whether to show a progress bar.

    Returns:
        Signed and absolute changes.

    Raises:
        ValueError: If there are not as many examples as spares, or more than n.
    """
    (inputs, targets), (fresh, fresh_targets) = train, spares
    n, m = len(targets), len(fresh_targets)
    chosen = _indices(range(min(m, n)) if examples is None else examples, n)
    if len(chosen) != m:
        raise ValueError(f"spares must be as many as examples, got {m} and {len(chosen)}")
    data = _concatenate(inputs, fresh), torch.cat([targets, fresh_targets])
    subsets = [_swap(n, i, (n + k,)) for k, i in enumerate(chosen)]
    solutions = _Retraining(
        model, config, _seeds(seeds), device, chunk_size, checkpoint_folder, progress
    )
    return solutions.compare(data, loss_fn, subsets, train, loss_fn, chosen, masks, confidence)


@dataclass(frozen=True)
class _Retraining:
    model: nn.Module
    config: FitConfig
    seeds: tuple[int, ...]
    device: str | torch.device
    chunk_size: int | None
    checkpoint_folder: str | Path | None
    progress: bool

    def compare(
        self,
        data: Data,
        trained_loss: LossFn,
        subsets: list[tuple[int, ...]],
        train: Data,
        loss_fn: LossFn,
        removed: list[int],
        masks: Masks | Inference,
        confidence: float,
    ) -> Stability:
        # Before the training, which an error after it would waste.
        check_masks(self.model, masks)
        if not self.seeds:
            raise ValueError("seeds must not be empty, got seeds=()")
        everything = tuple(range(len(train[1])))
        replicas = []
        for seed in self.seeds:
            again = derived_seed(seed, "retraining")
            replicas += [known_replica(seed, everything), known_replica(again, everything)]
            replicas += [known_replica(seed, subset) for subset in subsets]
        trained = unchecked(fit_replicas)(
            self.model,
            data,
            replicas,
            config=self.config,
            loss_fn=trained_loss,
            device=self.device,
            chunk_size=self.chunk_size,
            checkpoint_folder=self.checkpoint_folder,
            progress=self.progress,
        )
        adapter = adapter_config(self.model)
        # After training, which may have moved the model; its parameters are those of before.
        objective = made(
            AdapterObjective,
            self.model,
            train,
            loss_fn=loss_fn,
            masks=masks,
            weight=self.config.regularization * drop_probability(adapter.mask, adapter.dropout),
        )
        start = objective.center = objective.point()
        here = objective.flatten(trained.parameters).to(start.device)
        here = here.view(len(self.seeds), 2 + len(subsets), -1)
        full, noise, changed = here[:, 0], here[:, 1], here[:, 2:]
        at = torch.tensor(removed, device=start.device)
        before = torch.stack([objective.losses(point)[at] for point in full])
        other = torch.stack([objective.losses(point)[at] for point in noise])
        after = torch.stack([objective.pair_losses(points, at) for points in changed])
        penalty = objective.penalty(changed) - objective.penalty(full)[:, None]
        moved = changed - full[:, None]
        means = unchecked(summarize)
        return Stability(
            examples=np.array(removed, dtype=np.int64),
            seeds=self.seeds,
            loss=means(as_array(after - before), confidence),
            regularized=means(as_array(after - before + penalty), confidence),
            noise=means(as_array(other - before), confidence),
            distances=as_array(moved.norm(dim=2)),
            noise_distances=as_array((noise - full).norm(dim=1)),
            solutions=as_array(changed),
            full=as_array(full),
            start=as_array(start),
            weight=objective.weight,
            diverged=len(trained.diverged),
        )


@dataclass(frozen=True)
class _WeightedLoss:
    """A mean of weighted losses; the weight travels as the last number of an example's target."""

    loss_fn: LossFn
    shape: torch.Size  # of one target

    def pack(self, targets: Tensor, weights: Tensor) -> Tensor:
        flat = targets.reshape(len(targets), -1)
        return torch.cat([flat, weights[:, None].to(flat)], dim=1)

    def __call__(self, outputs: Tensor, packed: Tensor) -> Tensor:
        targets = packed[:, :-1].reshape(len(packed), *self.shape)
        return (unchecked(example_losses)(self.loss_fn, outputs, targets) * packed[:, -1]).mean()


def _indices(examples: Sequence[int] | None, n: int) -> list[int]:
    chosen = list(range(n)) if examples is None else check_indices("examples", examples, n)
    if len(set(chosen)) != len(chosen) or len(chosen) < 2:
        raise ValueError(
            f"examples must be 2 or more distinct indices, got examples={short(chosen)}"
        )
    return chosen


def _seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    return tuple(check_seed("seeds", seed) for seed in check_sequence("seeds", seeds, object))


def _swap(n: int, index: int, instead: tuple[int, ...]) -> tuple[int, ...]:
    return (*range(index), *instead, *range(index + 1, n))


def _concatenate(first: Inputs, second: Inputs) -> Inputs:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.cat([first, second])
    if isinstance(first, Tensor) or isinstance(second, Tensor) or first.keys() != second.keys():
        raise ValueError("spares must have the same inputs as train, got others")
    return {name: torch.cat([tensor, second[name]]) for name, tensor in first.items()}
