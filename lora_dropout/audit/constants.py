"""The constants that the bounds take, measured on one adapter."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_bounds.bounds.laws import LawName
from lora_dropout.adapters.adapt import adapter_config, trainable_parameters
from lora_dropout.data import Data, LossFn
from lora_dropout.door import check_count, made, unchecked
from lora_dropout.probes.adapter_objective import AdapterObjective
from lora_dropout.probes.curvature import Curvature, curvature
from lora_dropout.probes.intervals import Interval, t_interval
from lora_dropout.probes.lipschitz import ball_lipschitz, slopes_between
from lora_dropout.probes.retraining import Stability, leave_one_out
from lora_dropout.seeds import seeded_generator
from lora_dropout.training.fit_config import FitConfig
from lora_dropout.training.penalty import drop_probability

SEGMENTS, POINTS = 8, 5
_ROUNDING = 1e-9
# Error of an eigenvalue, relative to the leading one (see `curvature`'s tolerance).
_EIGENVALUE_ERROR = 1e-6


@dataclass(frozen=True, eq=False)
class Constants:
    """What was measured of the mask-free `mean` network, in the space of the trained parameters.

    Attributes:
        n: Training examples.
        mask: The mask law.
        dropout: The rate p of its bits.
        drop_probability: The q of Eq. 11 under that law.
        regularization: The explicit weight lambda of Eq. 11's penalty in training; the paper's
            training has none.
        distance: ||theta - theta0||.
        rho: Slope of an example's loss (Lipschitz constant, a lower bound on the true one).
        eta: The same for the regularised loss.
        curvature: Of the unregularised training loss at theta.
        gradient_norm: Of the objective of Eq. 11 at theta.
        stability: Mean absolute change of the (clipped) loss of a left-out example, with its
            interval over the examples; None without retraining.
        signed_stability: The mean change with its sign.
        moves: Distances ||theta(S^i) - theta(S)||; empty without retraining.
        noise_moves: How far retraining on S itself with another seed moves the solution.
        facts: Name of an assumption (as in `lora_bounds`) -> what was found.
    """

    n: int
    mask: LawName
    dropout: float
    drop_probability: float
    regularization: float
    distance: float
    rho: float
    eta: float
    curvature: Curvature
    gradient_norm: float
    stability: tuple[float, Interval] | None
    signed_stability: float | None
    moves: tuple[float, ...]
    noise_moves: tuple[float, ...]
    facts: Mapping[str, bool | None]

    @property
    def convexity(self) -> float:
        """Lmin as a bound may use it: the least eigenvalue beyond the error of eigenvalues, or 0.

        At a solution whose Hessian has flat directions, the least eigenvalue found is rounding, and
        a bound that divides by it is a random number.
        """
        return _convexity(self.curvature)


def _convexity(bent: Curvature) -> float:
    if bent.least is None or bent.leading is None:
        return 0.0
    return max(bent.least - _EIGENVALUE_ERROR * abs(bent.leading), 0.0)


def retrain(
    model: nn.Module,
    train: Data,
    *,
    config: FitConfig,
    left_out: int | None,
    loss_fn: LossFn,
    folder: Path | None,
    progress: bool,
) -> Stability:
    """Train on the whole set and without single examples; the model keeps the former solution.

    Args:
        model: An adapted model; its present factors are where every run starts.
        train: (inputs, targets) of n examples.
        config: Training settings.
        left_out: How many examples to leave out, one at a time, evenly spaced; None: each.
        loss_fn: Training loss.
        folder: Where unfinished runs are kept.
        progress: Whether to show a progress bar.

    Returns:
        The solutions, and what leaving out did.

    Raises:
        FloatingPointError: If a run diverged.
        ValueError: If there are fewer examples than are to be left out.
    """
    n = len(train[1])
    count = n if left_out is None else check_count("left_out", left_out, minimum=2)
    if count > n:
        raise ValueError(f"left_out must be at most {n}, got left_out={left_out!r}")
    found = unchecked(leave_one_out)(
        model,
        train,
        config=config,
        loss_fn=loss_fn,
        examples=torch.linspace(0, n - 1, count).round().long().tolist(),
        seeds=(config.seed,),
        checkpoint_folder=folder,
        progress=progress,
    )
    if found.diverged:
        raise FloatingPointError(f"every run must end finite, {found.diverged} diverged")
    parameters = unchecked(trainable_parameters)(model)
    solution = made(AdapterObjective, model, train).unflatten(torch.from_numpy(found.full[0]))
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(solution[name])
    return found


def measure_constants(
    model: nn.Module,
    train: Data,
    *,
    initial: Mapping[str, Tensor],
    regularization: float,
    clipped: LossFn,
    retraining: Stability | None,
    loss_fn: LossFn = F.cross_entropy,
    seed: int = 0,
) -> Constants:
    """Measure everything but the risks.

    Slopes are the largest seen on the segments from theta(S) to at most 8 of the theta(S^i), at 5
    points each; without retraining, by ascent in a ball of a hundredth of the distance moved.

    Args:
        model: The trained model.
        train: What it was trained on.
        initial: Name -> value of each trained parameter before training.
        regularization: lambda.
        clipped: The bounded loss whose stability is measured.
        retraining: Solutions without single examples, if there are any.
        loss_fn: Training loss, unclipped: slopes and curvature are its.
        seed: Seed of the ascent and of the eigenvalue solver.

    Returns:
        The constants, with the facts they show.
    """
    settings = adapter_config(model)
    q = drop_probability(settings.mask, settings.dropout)
    weight = regularization * q
    plain = made(AdapterObjective, model, train, loss_fn=loss_fn)
    center = plain.flatten(initial)
    objective = made(AdapterObjective, model, train, loss_fn=loss_fn, weight=weight, center=center)
    theta = plain.point()
    distance = float((theta - center).norm())
    bent = unchecked(curvature)(plain, theta, seed=seed)
    gradient_norm = float(objective.gradient(theta).norm())
    n = len(plain.targets)
    facts: dict[str, bool | None] = {"bounded loss": True, "convex loss": None}
    if bent.least is not None and bent.leading is not None:
        psd = bent.least >= -_EIGENVALUE_ERROR * max(abs(bent.leading), _ROUNDING)
        facts["positive semidefinite Hessian"] = psd
        if not psd:
            facts["convex loss"] = False
    if retraining is None:
        slopes = unchecked(ball_lipschitz)(
            plain,
            theta,
            max(distance * 0.01, _ROUNDING),
            generator=seeded_generator(seed),
        )
        rho = slopes.rho
        eta = rho + 2.0 * weight * distance * 1.01
        return Constants(
            n, settings.mask, settings.dropout, q, regularization, distance, rho, eta, bent,
            gradient_norm, None, None, (), (), facts,
        )  # fmt: skip
    moves, ends = torch.from_numpy(retraining.distances[0]), _solutions(retraining, theta)
    chosen = ends[:: -(-len(moves) // SEGMENTS)]
    segments = [slopes_between(objective, theta, end, n_points=POINTS) for end in chosen]
    rho, eta = max(s.rho for s in segments), max(s.eta for s in segments)
    least = _convexity(bent) + 2.0 * weight
    start = objective.value(theta)
    rises = torch.tensor([objective.value(end) - start for end in ends])
    facts["curvature along the segment"] = bool((rises >= least / 2.0 * moves**2 - _ROUNDING).all())
    # What the proof of Prop. 4.2 uses of eta is the secants between the solutions.
    secants = max(float(s.regularized_secants.max()) for s in segments)
    facts["Lipschitz regularised loss"] = secants <= eta * (1.0 + _ROUNDING)
    if least > 0:
        # How far from the minimiser, if the curvature is right: it must not drown the moves.
        facts["minimisers"] = gradient_norm / least <= 0.01 * float(moves.mean())
    changes = _changes(model, train, clipped, theta, retraining)
    return Constants(
        n=n,
        mask=settings.mask,
        dropout=settings.dropout,
        drop_probability=q,
        regularization=regularization,
        distance=distance,
        rho=rho,
        eta=eta,
        curvature=bent,
        gradient_norm=gradient_norm,
        stability=(float(changes.abs().mean()), _interval(changes.abs())),
        signed_stability=float(changes.mean()),
        moves=tuple(moves.tolist()),
        noise_moves=tuple(retraining.noise_distances.tolist()),
        facts=facts,
    )


def _changes(
    model: nn.Module, train: Data, clipped: LossFn, theta: Tensor, retraining: Stability
) -> Tensor:
    objective = made(AdapterObjective, model, train, loss_fn=clipped)
    chosen = torch.from_numpy(retraining.examples).to(objective.targets.device)
    before = objective.losses(theta)[chosen]
    return (objective.pair_losses(_solutions(retraining, theta), chosen) - before).cpu()


def _solutions(retraining: Stability, like: Tensor) -> Tensor:
    return torch.from_numpy(retraining.solutions[0]).to(like)


def _interval(values: Tensor) -> Interval:
    if len(values) < 2:
        return Interval(0.0, float("inf"), 0.95)
    return unchecked(t_interval)(values.numpy(), confidence=0.95)


def copy_of_parameters(model: nn.Module) -> dict[str, Tensor]:
    """The trained parameters as they are now.

    Args:
        model: An adapted model.

    Returns:
        Name -> copy.
    """
    return {name: p.detach().clone() for name, p in unchecked(trainable_parameters)(model).items()}
