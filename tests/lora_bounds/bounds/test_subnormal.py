"""Inputs over the whole range of floats, subnormal ones too: the bound stays on the safe side."""

import mpmath as mp
import numpy as np

from lora_bounds import dropout_kl, lemma_4_3, theorem_4_4


def _draws(count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        c, delta, beta, eta, lam = (
            float(10.0 ** rng.uniform(-323.0, top)) for top in (100, 0, 150, 100, 150)
        )
        n = float(np.floor(10 ** rng.uniform(0, 15)))
        yield n, delta, c, beta, eta, lam, c * float(rng.choice([0.0, rng.uniform()]))


@mp.workprec(300)
def test_lemma_4_3_and_theorem_4_4_at_any_size_of_numbers():
    for n, delta, c, beta, eta, lam, risk in _draws(600):
        common = {"n": n, "delta": delta, "loss_range": c, "empirical_risk": risk}
        exact, d = mp.mpf(c), mp.mpf(delta)
        want = risk + mp.sqrt((exact**2 + 12 * exact * n * mp.mpf(beta)) / (2 * n * d))
        assert lemma_4_3(stability=beta, **common).value >= want
        weight = 2 * mp.mpf(lam) * mp.mpf(0.75)
        want = risk + mp.sqrt((exact**2 + 24 * exact * mp.mpf(eta) ** 2 / weight) / (2 * n * d))
        got = theorem_4_4(
            lipschitz=eta, curvature=0.0, regularization=lam, dropout=0.5, **common
        ).value
        assert got >= want


def test_a_divergence_does_not_vanish():
    assert dropout_kl(dropout=0.5, squared_norm=5e-324, width=1e-200) > 1e76
    assert dropout_kl(dropout=0.5, squared_norm=1e-300, width=1e100) > 0.0
    assert dropout_kl(dropout=1.0, squared_norm=1.0, width=1.0) == 0.0
