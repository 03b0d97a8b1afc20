"""One call from an adapter and data to the verdict on every bound."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor, nn
from torch.nn import functional as F

from lora_bounds import (
    Assumption,
    BoundResult,
    compare_bounds,
    dropout_rate,
    hoeffding,
    lemma_4_3,
    theorem_4_4,
)
from lora_bounds.bounds.judge import Judgement, Status, judge, judgement_table
from lora_dropout.adapters.adapt import adapter_config, trainable_parameters
from lora_dropout.audit.constants import (
    Constants,
    copy_of_parameters,
    measure_constants,
    retrain,
)
from lora_dropout.audit.gibbs_bound import judge_pac_bayes
from lora_dropout.data import Data, LossFn, map_inputs, model_device
from lora_dropout.door import (
    Confidence,
    Count,
    Held,
    NonNegative,
    Positive,
    check_type,
    checked,
    unchecked,
)
from lora_dropout.prediction.averaging import OUTPUTS
from lora_dropout.prediction.ensemble import Prediction, outputs_of
from lora_dropout.probes.example_losses import ClippedCrossEntropy
from lora_dropout.probes.gap import Gap, generalization_gap
from lora_dropout.seeds import Seed
from lora_dropout.training.fit_config import FitConfig
from lora_dropout.training.penalty import factor_names

Facts = Annotated[
    Mapping[str, bool | None], partial(check_type, kind=Mapping, what="facts by name")
]


@dataclass(frozen=True, eq=False)
class Audit:
    """An adapter on trial; `print` it.

    Attributes:
        constants: What was measured.
        gap: Of the mask-free `mean` network, which the bounds speak of; losses clipped to
            `loss_range`.
        ensemble_gap: Of the ensemble, for comparison.
        loss_range: C, in nats.
        delta: Failure probability of each bound by itself.
        judgements: The bounds.
        yardstick: Hoeffding's bound on the gap from the held-out data alone.
        notes: What a bound leaves out of this adapter's training, and why.
    """

    constants: Constants
    gap: Gap
    ensemble_gap: Gap
    loss_range: float
    delta: float
    judgements: tuple[Judgement, ...]
    yardstick: float
    notes: tuple[str, ...] = ()

    @property
    def contradictions(self) -> tuple[Judgement, ...]:
        """Bounds that were exceeded although all their assumptions were found to hold."""
        return tuple(j for j in self.judgements if j.status is Status.CONTRADICTED)

    def __str__(self) -> str:
        c = self.constants
        least = c.curvature.least
        masks = f"masks {c.mask} at p={c.dropout}" if c.mask != "none" else "no masks"
        lines = [
            f"n={c.n}, {masks} (q={c.drop_probability:.3g}), lambda={c.regularization}, "
            f"losses in [0, {self.loss_range:.3g}] nats, delta={self.delta}",
            f"empirical gap {self.gap.gap:.4g} [{self.gap.interval.low:.4g}, "
            f"{self.gap.interval.high:.4g}] (ensemble {self.ensemble_gap.gap:.4g}); "
            f"training loss {self.gap.train:.4g}, held-out loss {self.gap.held_out:.4g}",
            f"slopes rho {c.rho:.3g}, eta {c.eta:.3g}; least curvature "
            f"{'unknown' if least is None else f'{least:.3g}'}; "
            f"gradient norm {c.gradient_norm:.3g}; distance moved {c.distance:.3g}",
        ]
        if c.stability is not None:
            beta, interval = c.stability
            lines.append(
                f"stability by retraining without each of {len(c.moves)} examples: {beta:.3g} "
                f"[{interval.low:.3g}, {interval.high:.3g}]; solutions move by "
                f"{min(c.moves):.3g} to {max(c.moves):.3g} (another seed alone moves them by "
                f"{max(c.noise_moves):.3g})"
            )
        lines += [judgement_table(self.judgements), *self.notes]
        lines.append(f"yardstick, held-out data alone (Hoeffding): gap <= {self.yardstick:.3g}")
        return "\n".join(lines)


@checked
def audit(
    model: nn.Module,
    train: Data,
    held_out: Data,
    *,
    config: FitConfig | None = None,
    initial: Mapping[str, Tensor] | None = None,
    regularization: NonNegative | None = None,
    left_out: Count | None = None,
    loss_cap: Positive | None = None,
    delta: Confidence = 0.05,
    n_draws: Held = 200,
    known: Facts | None = None,
    seed: Seed = 0,
    folder: str | Path | None = None,
    progress: bool = True,
) -> Audit:
    """Measure an adapter's constants, evaluate every bound, and judge each by the held-out data.

    Give `config` for an adapter that is yet to be trained: it is trained here, on the whole set and
    without single examples (`fit_replicas`), and left with the solution of the whole set. Give
    `initial` for one that is trained already: its stability is then not measured.

    Each bound is evaluated under the model's own mask law: the stability bounds know it by the q of
    Eq. 11, the probability that it drops an entry (where lambda q = 0 nothing but curvature keeps
    them finite), PAC-Bayes by what each tensor's move costs (`gibbs_kl`).

    The bounds speak of a loss in [0, C]: risks and stability are of cross-entropy clipped at
    `loss_cap`, slopes and curvature of the unclipped one, which are no smaller.

    Args:
        model: An adapted classifier that trains its factors alone: the penalty of Eq. 11, and so
            every stability bound, knows no other parameters.
        train: (inputs, class targets) of n examples.
        held_out: Examples that played no part in training or selection.
        config: Training settings.
        initial: Name -> value of each trained parameter before the training.
        regularization: Weight lambda of Eq. 11 in the training; None is `config.regularization`,
            or 0. (The paper's training has no such term.)
        left_out: How many examples to leave out, one at a time; None: each.
        loss_cap: C in nats; None is twice the logarithm of the number of classes.
        delta: Failure probability of each bound, in (0, 1).
        n_draws: Draws of masks and noise for the PAC-Bayes bound.
        known: Name of an assumption -> what you know of it, such as {"i.i.d. sample": True}; it
            goes before what is measured.
        seed: Seed of what is drawn while measuring.
        folder: Where unfinished retrainings are kept.
        progress: Whether to show progress bars (on standard error).

    Returns:
        The verdict on every bound. Each holds with probability 1 - delta by itself.

    Raises:
        ValueError: If neither or both of `config` and `initial` are given, the targets are no
            classes, an example's loss is not finite, more than the factors is trained, or the
            layers have several laws or rates.
    """
    if (config is None) == (initial is None):
        raise ValueError(
            "give either config (to train here) or initial (trained already), "
            f"got {'neither' if config is None else 'both'}"
        )
    adapter = adapter_config(model)
    if adapter.modules_to_save:
        raise ValueError(
            f"model must train its factors alone, got modules_to_save={adapter.modules_to_save!r}"
        )
    unmasked = sorted(unchecked(trainable_parameters)(model).keys() - set(factor_names(model)))
    if unmasked:
        raise ValueError(
            f"model must train its factors alone, got {unmasked[0]!r} trained too: freeze it "
            "(requires_grad_(False))"
        )
    for name, (_, targets) in (("train", train), ("held_out", held_out)):
        if targets.is_floating_point():
            raise ValueError(f"{name} must have class targets, got {targets.dtype}")
    lam = regularization
    if lam is None:
        lam = config.regularization if config is not None else 0.0
    cap = 2.0 * math.log(_classes(model, train)) if loss_cap is None else loss_cap
    clipped = ClippedCrossEntropy(cap)

    def gap_of(mode: Prediction) -> Gap:
        return unchecked(generalization_gap)(
            model,
            train,
            held_out,
            loss_fn=clipped,
            inference=mode,
            seed=seed,
            confidence=1.0 - delta,
        )

    gap_of("mean")  # also before the retraining: data whose losses are no numbers are refused
    start = copy_of_parameters(model) if initial is None else initial
    loss_fn: LossFn = F.cross_entropy
    retraining = None
    if config is not None:
        retraining = retrain(
            model,
            train,
            config=config,
            left_out=left_out,
            loss_fn=loss_fn,
            folder=None if folder is None else Path(folder),
            progress=progress,
        )
    gap, ensemble_gap = gap_of("mean"), gap_of("ensemble")
    constants = measure_constants(
        model,
        train,
        initial=start,
        regularization=lam,
        clipped=clipped,
        retraining=retraining,
        loss_fn=loss_fn,
        seed=seed,
    )
    facts, notes = dict(constants.facts), []
    if config is not None and adapter.adapter == "adalora" and config.orthogonality > 0:
        facts["minimisers"] = False
        notes.append(
            f"stability bounds: AdaLoRA's orthogonality term (weight {config.orthogonality:g}) is "
            "in what was minimised and in none of them; PAC-Bayes does not ask what was minimised"
        )
    facts.update(known or {})
    pac_bayes = judge_pac_bayes(
        model,
        train,
        held_out,
        initial=start,
        delta=delta,
        loss_range=cap,
        clipped=clipped,
        n_draws=n_draws,
        seed=seed,
        facts=facts,
    )
    held = hoeffding(n=len(held_out[1]), delta=delta, empirical_risk=gap.held_out, loss_range=cap)
    return Audit(
        constants=constants,
        gap=gap,
        ensemble_gap=ensemble_gap,
        loss_range=cap,
        delta=delta,
        judgements=(*_judge_stability(constants, gap, cap, delta, facts), pac_bayes),
        yardstick=float(held.value) - gap.train,
        notes=tuple(notes),
    )


def _classes(model: nn.Module, data: Data) -> int:
    first = map_inputs(lambda t: t[:1].to(model_device(model)), data[0])
    outputs = outputs_of(
        model, first, inference="mean", n_instances=1, generator=None, averaging=OUTPUTS
    )
    return outputs.shape[-1]


def _judge_stability(
    constants: Constants,
    gap: Gap,
    loss_range: float,
    delta: float,
    facts: Mapping[str, bool | None],
) -> list[Judgement]:
    c = constants
    risk = (gap.risk.low, gap.risk.high)

    def judged(result: BoundResult, name: str, assumptions: Sequence[Assumption] = ()) -> Judgement:
        return judge(
            result,
            empirical_risk=gap.train,
            risk=risk,
            confidence=1.0 - delta,
            facts=facts,
            assumptions=assumptions,
            name=name,
        )

    common: dict[str, Any] = {
        "n": c.n,
        "delta": delta,
        "loss_range": loss_range,
        "empirical_risk": gap.train,
    }
    penalty: dict[str, Any] = {
        # These bounds take a law's q by the rate of row and column masks that drop as many entries.
        "dropout": dropout_rate(drop_probability=c.drop_probability),
        "regularization": c.regularization,
        "curvature": c.convexity,
    }
    rows = [
        judged(
            theorem_4_4(lipschitz=c.eta, **penalty, **common),
            "Thm 4.4 as printed, measured eta",
        )
    ]
    if c.stability is not None:
        rows.append(
            judged(
                lemma_4_3(stability=c.stability[1].high, **common),
                "Lemma 4.3, measured stability",
            )
        )
    compared = compare_bounds(lipschitz=c.rho, **penalty, **common)
    rows += [judged(row.result, row.name, row.assumptions) for row in compared]
    return rows
