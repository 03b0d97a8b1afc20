"""The mask laws against all masks of small layers: drop rate, mean, and what is in use."""

from itertools import product

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import lora_bounds
from lora_bounds.bounds.laws import MASK_LAWS, TENSOR_KINDS, mask_law
from lora_bounds.bounds.pac_bayes import dropout_kl, pac_bayes_dropout_bound
from lora_bounds.claims.symbolic_masks import symbolic_updates
from lora_bounds.exact.linear import mean_factor
from lora_bounds.trial.enumeration import masked_updates

RATES = [0.1, 0.3, 0.5, 0.8]
ROWS, RANK, COLUMNS = 3, 2, 4


@pytest.fixture
def factors():
    rng = np.random.default_rng(4)
    return {
        "B": rng.normal(size=(ROWS, RANK)),
        "E": rng.normal(size=(1, RANK)),
        "A": rng.normal(size=(RANK, COLUMNS)),
    }


def updates(law, factors, p):
    return masked_updates(law, factors["B"] * factors["E"], factors["A"], p)


@pytest.mark.parametrize("law", MASK_LAWS)
@pytest.mark.parametrize("p", RATES)
def test_drop_rate_and_mean_over_all_masks(law, p, factors):
    found, chance = updates(law, factors, p)
    dropped = chance @ (found == 0.0).mean(axis=(1, 2))
    assert_allclose(dropped, mask_law(law).drop_probability(dropout=p, rank=RANK), rtol=1e-12)
    whole = (factors["B"] * factors["E"]) @ factors["A"]
    mean = np.tensordot(chance, found, 1)
    assert_allclose(mean, mean_factor(law=law, dropout=p) * whole, rtol=1e-10)
    one, chance = masked_updates(law, np.ones((2, 1)), np.ones((1, 2)), p)
    assert_allclose(
        chance @ (one == 0.0).mean(axis=(1, 2)),
        mask_law(law).drop_probability(dropout=p),
        rtol=1e-12,
    )


def share_in_use(law, factors, kind, p, rows):
    """Probability that a change of one entry changes the output of an example of some rows."""
    shares = []
    before, chance = updates(law, factors, p)
    for index in np.ndindex(factors[kind].shape):
        moved = factors[kind].copy()
        moved[index] += 1.0
        after, _ = updates(law, {**factors, kind: moved}, p)
        used = np.abs(after - before).max(axis=(1, 2)) > 0.0
        if law == "activation":  # masks of its own for each row of the example
            shares.append(
                sum(
                    np.prod(chance[list(which)])
                    for which in product(range(len(chance)), repeat=rows)
                    if used[list(which)].any()
                )
            )
        else:
            shares.append(chance @ used)
    return float(np.mean(shares))


@pytest.mark.parametrize("law", MASK_LAWS)
@pytest.mark.parametrize("kind", ["A", "B", "E"])
@pytest.mark.parametrize(("p", "rows"), [(0.1, 1), (0.3, 1), (0.5, 1), (0.3, 2), (0.5, 2)])
def test_kl_factor_is_the_share_in_use_over_all_masks(law, kind, p, rows, factors):
    used = share_in_use(law, factors, kind, p, rows)
    factor = mask_law(law).kl_factor(kind, dropout=p, rows=rows)
    assert used <= factor + 1e-12  # never below the truth
    # Above it by no more than the chance that nothing of the layer is left.
    nothing = {
        "row_column": p**ROWS + p**COLUMNS,
        "rank": 0.0,
        "activation": 0.0 if kind == "A" else p ** (COLUMNS * rows),
        "entrywise": {"A": p**ROWS, "B": p**COLUMNS, "E": p ** (ROWS * COLUMNS)}[kind],
        "none": 0.0,
    }[law]
    assert factor - used <= nothing + 1e-12
    assert mask_law(law).kl_factor("other", dropout=p, rows=rows) == 1.0


@pytest.mark.parametrize("law", MASK_LAWS)
def test_the_proofs_enumerate_the_same_laws(law, factors):
    p = 0.3
    b, a = (sympy.Matrix(factors[name]) for name in "BA")
    ours, chance = masked_updates(law, factors["B"], factors["A"], p)
    theirs = list(symbolic_updates(law, b, a, p))
    assert len(theirs) == len(ours)
    for update, weight, (symbols, probability) in zip(ours, chance, theirs, strict=True):
        assert_allclose(np.array(symbols, dtype=float), update, atol=1e-12)
        assert float(probability) == pytest.approx(weight, rel=1e-12)


@given(st.sampled_from(MASK_LAWS), st.sampled_from(TENSOR_KINDS), st.integers(1, 50))
def test_at_rate_zero_every_law_is_none_and_factors_fall_with_p(law, kind, rows):
    found, none = mask_law(law), mask_law("none")
    for statement in ("drop_probability", "mean"):
        assert getattr(found, statement)(dropout=0.0) == getattr(none, statement)(dropout=0.7)
    rates = np.linspace(0.0, 1.0, 21)
    factor = found.kl_factor(kind, dropout=rates, rows=rows)
    assert factor.shape == rates.shape
    assert factor[0] == 1.0
    assert (np.diff(factor) <= 0.0).all()
    assert ((factor >= 0.0) & (factor <= 1.0)).all()
    more = found.kl_factor(kind, dropout=rates, rows=rows + 1)
    assert (more >= factor).all()
    unlimited = found.kl_factor(kind, dropout=rates[:-1], rows=np.inf)
    assert (unlimited >= more[:-1]).all()
    if found.as_dropout:
        assert (unlimited == 1.0).all()


def test_the_limits_of_activation_dropout():
    law = mask_law("activation")
    assert law.mean(dropout=1.0) == 0.0  # nothing is left to scale up
    assert law.kl_factor("A", dropout=1.0, rows=np.inf) == 0.0
    assert law.kl_factor("A", dropout=1 - 1e-12, rows=2) == pytest.approx(2e-12, rel=1e-4)
    with pytest.raises(ValueError, match="below 1 under the activation law"):
        law.moments(dropout=[0.5, 1.0])


# An example at p = 0.8 and width 1, of which 1-p of every tensor was taken under every law.
EXAMPLE = {"A": 1.69250, "B": 0.67750}


@pytest.mark.parametrize(
    ("law", "right"),
    [("row_column", 0.237), ("rank", 0.237), ("activation", 0.508), ("entrywise", 1.185),
     ("none", 1.185)],
)  # fmt: skip
def test_the_divergence_of_each_law(law, right):
    shared = {"dropout": 0.8, "law": law}
    assert dropout_kl(squared_norm=EXAMPLE, width=1.0, **shared) == pytest.approx(right, abs=1e-9)
    head = {**EXAMPLE, "other": 2.0}
    assert dropout_kl(squared_norm=head, width=1.0, **shared) == pytest.approx(right + 1, abs=1e-9)
    lam = {**EXAMPLE, "E": 2.0}
    counted = 0.2 if law == "rank" else 1.0
    assert dropout_kl(squared_norm=lam, width=1.0, **shared) == pytest.approx(
        right + counted, abs=1e-9
    )
    if law != "activation":
        total = sum(EXAMPLE.values())
        assert dropout_kl(squared_norm=total, width=1.0, **shared) == pytest.approx(right, abs=1e-9)
    bounds = [
        pac_bayes_dropout_bound(
            n=100, delta=0.05, loss_range=1.0, empirical_risk=[[0.1, 0.1]], widths=[1.0, 0.5],
            squared_norm={kind: [norm] for kind, norm in EXAMPLE.items()}, **shared,
        ).value.item(),
        lora_bounds.pac_bayes_kl_bound(
            n=100, delta=0.025, loss_range=1.0, empirical_risk=0.1, kl=right
        ).value,
    ]  # fmt: skip
    assert bounds[0] == pytest.approx(bounds[1], abs=1e-9)


def test_tokens_leave_less_of_the_factor_out_of_use():
    kl = dropout_kl(dropout=0.8, squared_norm=EXAMPLE, width=[1.0, 2.0], law="activation", rows=3)
    assert_allclose(kl, (EXAMPLE["A"] * (1 - 0.8**3) + EXAMPLE["B"]) / 2 / np.array([1, 4]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mask_law("columns"), "law must be one of row_column, .*; got law='columns'"),
        (lambda: mask_law("none").kl_factor("C", dropout=0.5), "got tensor='C'"),
        (lambda: mask_law("none").kl_factor("A", dropout=1.5), r"got dropout=1\.5"),
        (lambda: mask_law("activation").kl_factor("A", dropout=0.5, rows=0), r"rows=0\.0"),
        (lambda: mask_law("rank").drop_probability(dropout=0.5, rank=0), r"rank=0\.0"),
        (
            lambda: dropout_kl(dropout=0.5, squared_norm=1.0, width=1.0, law="activation"),
            r"squared_norm must be given by tensor under law='activation'.*got squared_norm=1\.0",
        ),
        (
            lambda: dropout_kl(dropout=0.5, squared_norm={"A": -1.0}, width=1.0),
            r"squared_norm=-1\.0",
        ),
        (
            lambda: dropout_kl(dropout=[0.5] * 2, squared_norm={"A": [1.0] * 3}, width=1.0),
            r"got dropout of \(2,\), squared_norm\['A'\] of \(3,\)",
        ),
    ],
)
def test_rejections(call, message):
    with pytest.raises(ValueError, match=message):
        call()
