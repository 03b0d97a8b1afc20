"""The PAC-Bayes dropout bound on a trained adapter, Monte Carlo error and all."""

import math
from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from lora_bounds import geometric_widths, kl_inverse, pac_bayes_kl_bound
from lora_bounds.bounds.judge import Judgement, judge
from lora_bounds.bounds.pac_bayes import GRID
from lora_dropout.data import Data, LossFn
from lora_dropout.door import unchecked
from lora_dropout.probes.gibbs import gibbs_kl, gibbs_risk

# Fixed before any data: this is what makes the union bound over the widths a bound.
WIDTHS = geometric_widths(largest=1.0, ratio=0.5, count=8)


def judge_pac_bayes(
    model: nn.Module,
    train: Data,
    held_out: Data,
    *,
    initial: Mapping[str, Tensor],
    delta: float,
    loss_range: float,
    clipped: LossFn,
    n_draws: int,
    seed: int,
    facts: Mapping[str, bool | None],
) -> Judgement:
    """Judge the bound on the risk of the noisy masked network, which is its own predictor.

    Half of delta goes to the bound, half to the sampling of its empirical risk: each width's
    true mean over masks and noise is at most kl_inverse(mean, ln(2 K / delta) / draws).

    Args:
        model: The trained model.
        train: What it was trained on, n examples.
        held_out: m unseen examples.
        initial: Name -> value of each trained parameter before training, chosen without the data.
        delta: Failure probability of the bound.
        loss_range: C.
        clipped: Loss in [0, C].
        n_draws: Draws of masks and noise for each width.
        seed: Seed of the draws.
        facts: What is known of the assumptions.

    Returns:
        The judgement, at the width where the bound is least; the risk's interval there is by
        Hoeffding's inequality over the draws and over the examples, at confidence 1 - delta.
    """
    widths = tuple(float(width) for width in WIDTHS)
    seen, fresh = (
        unchecked(gibbs_risk)(
            model, data, loss_fn=clipped, widths=widths, n_draws=n_draws, seed=seed
        )
        for data in (train, held_out)
    )
    share = np.minimum(seen.losses.mean(axis=1) / loss_range, 1.0)
    spread = math.log(2.0 * len(widths) / delta) / n_draws
    empirical = loss_range * np.asarray(kl_inverse(empirical_risk=share, bound=spread))
    divergences = unchecked(gibbs_kl)(model, train[0], initial=initial, widths=widths)
    bounds = [
        pac_bayes_kl_bound(
            n=len(train[1]),
            # Each width has its share of delta: the union bound over the grid.
            delta=delta / 2.0 / len(widths),
            kl=kl,
            empirical_risk=risk,
            loss_range=loss_range,
        )
        for kl, risk in zip(divergences, empirical, strict=True)
    ]
    best = min(range(len(bounds)), key=lambda k: float(bounds[k].value))
    middle = float(fresh.losses[best].mean())
    slack = loss_range * sum(
        math.sqrt(math.log(4.0 / delta) / (2.0 * size)) for size in (n_draws, len(held_out[1]))
    )
    known = {"prior before data": True, "randomised risk": True, "grid before data": True}
    return judge(
        bounds[best],
        empirical_risk=float(empirical[best]),
        risk=(max(middle - slack, 0.0), min(middle + slack, loss_range)),
        confidence=1.0 - delta,
        facts={**known, **facts},
        assumptions=(GRID,),
        name=f"PAC-Bayes dropout, width {widths[best]:.3g}",
    )
