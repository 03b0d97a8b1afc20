"""Thm 4.5, the finite ensemble and the Jensen gaps, against enumeration and plain formulas."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp
from numpy.testing import assert_allclose

from lora_bounds.bounds.ensemble_risk import (
    cross_entropy_losses,
    ensemble_excess,
    ensemble_loss,
    logistic_losses,
    squared_losses,
)

IDENTITY = 1e-12
outputs = st.lists(st.floats(-50, 50), min_size=1, max_size=6)


@pytest.mark.claim("Eq. 8")
@pytest.mark.parametrize("members", [1, 2, 3, 4])
def test_excess_is_exact_over_all_ensembles_of_mask_draws(members):
    """Each member drops one of two features by a coin flip; all ensembles are enumerated."""
    draws = [2.0 * a + 3.0 * b for a, b in product((0, 1), repeat=2)]
    target, mean, variance = 1.0, np.mean(draws), np.var(draws)
    losses = [(np.mean(group) - target) ** 2 for group in product(draws, repeat=members)]
    got = ensemble_loss(infinite_loss=(mean - target) ** 2, variance=variance, n_instances=members)
    assert_allclose(np.mean(losses), got, rtol=IDENTITY)
    assert_allclose(
        got - (mean - target) ** 2,
        ensemble_excess(variance=variance, n_instances=members),
        rtol=IDENTITY,
    )


def test_excess_limits():
    assert ensemble_excess(variance=3.0, n_instances=1) == 3.0
    assert ensemble_excess(variance=3.0, n_instances=np.inf) == 0.0
    assert ensemble_loss(infinite_loss=0.5, variance=3.0, n_instances=np.inf) == 0.5
    many = ensemble_excess(variance=3.0, n_instances=np.arange(1, 9))
    assert np.all(np.diff(many) < 0)


@pytest.mark.claim("Thm 4.5")
@given(outputs, st.floats(-50, 50))
def test_squared_losses(values, target):
    got = squared_losses(outputs=values, target=target)
    assert_allclose(got.ensemble, (np.mean(values) - target) ** 2, rtol=IDENTITY)
    assert_allclose(got.mean_member, np.mean([(v - target) ** 2 for v in values]), rtol=IDENTITY)
    assert_allclose(got.gap, np.var(values), rtol=1e-10, atol=1e-10)
    assert got.gap >= 0.0
    assert_allclose(got.mean_member - got.ensemble, got.gap, atol=1e-10)


def test_squared_losses_broadcast_over_outputs():
    members = np.arange(12.0).reshape(3, 4)
    got = squared_losses(outputs=members, target=np.ones(4))
    assert got.gap.shape == got.ensemble.shape == got.mean_member.shape == (4,)
    assert_allclose(got.gap, members.var(axis=0), rtol=IDENTITY)
    assert squared_losses(outputs=[1.0], target=np.zeros(2)).gap.tolist() == [0.0, 0.0]


@pytest.mark.claim("Thm 4.5")
@given(outputs, st.sampled_from([-1.0, 1.0]))
def test_logistic_losses(values, label):
    got = logistic_losses(logits=values, target=label)
    with mp.workdps(40):
        losses = [mp.log(1 + mp.exp(-label * mp.mpf(v))) for v in values]
        mean = sum(map(mp.mpf, values)) / len(values)
        ensemble = mp.log(1 + mp.exp(-label * mean))
        assert_allclose(got.mean_member, float(sum(losses) / len(losses)), rtol=1e-10)
        assert_allclose(got.ensemble, float(ensemble), rtol=1e-10)
        gap = float(sum(losses) / len(losses) - ensemble)
    assert_allclose(got.gap, gap, atol=1e-10)
    assert got.gap >= -1e-12


@pytest.mark.claim("Thm 4.5")
@given(
    st.integers(1, 5), st.integers(0, 2), st.sampled_from(["probabilities", "logits"]),
    st.integers(0, 10**6), st.sampled_from([1.0, 10.0, 300.0]),
)  # fmt: skip
def test_cross_entropy_losses(members, label, average, seed, scale):
    logits = scale * np.random.default_rng(seed).normal(size=(members, 3))
    got = cross_entropy_losses(logits=logits, label=label, average=average)
    with mp.workdps(400):
        rows = [[mp.mpf(v) for v in row] for row in logits]

        def probability(row):
            return mp.exp(row[label]) / sum(mp.exp(v) for v in row)

        mean_member = -sum(mp.log(probability(row)) for row in rows) / members
        if average == "probabilities":
            ensemble = -mp.log(sum(probability(row) for row in rows) / members)
        else:
            ensemble = -mp.log(probability([sum(c) / members for c in zip(*rows, strict=True)]))
        assert_allclose(got.mean_member, float(mean_member), rtol=1e-10, atol=1e-12)
        assert_allclose(got.ensemble, float(ensemble), rtol=1e-10, atol=1e-12)
        assert_allclose(got.gap, float(mean_member - ensemble), rtol=1e-10, atol=1e-11)
    assert got.gap >= -1e-12 * scale


def test_cross_entropy_of_batches():
    logits = np.random.default_rng(1).normal(size=(4, 5, 3))
    labels = np.array([0, 1, 2, 1, 0])
    got = cross_entropy_losses(logits=logits, label=labels, average="logits")
    for i, label in enumerate(labels):
        one = cross_entropy_losses(logits=logits[:, i], label=label, average="logits")
        assert_allclose(got.ensemble[i], one.ensemble, rtol=IDENTITY)
        assert_allclose(got.mean_member[i], one.mean_member, rtol=IDENTITY)


@pytest.mark.claim("T4")
def test_one_member_has_no_gap():
    assert squared_losses(outputs=[3.0], target=1.0).gap == 0.0
    assert logistic_losses(logits=[0.3], target=1.0).gap == 0.0
    one = cross_entropy_losses(logits=[[0.1, 2.0]], label=1, average="probabilities")
    assert_allclose(one.gap, 0.0, atol=1e-15)


@pytest.mark.claim("Audit 11", "T4")
@given(st.integers(0, 10**6), st.sampled_from(["probabilities", "logits"]))
def test_expected_loss_of_subsets_does_not_rise_with_their_size(seed, average):
    """For exchangeable members: mean over all sub-ensembles of size N, N = 1, 2, 3."""
    logits = 3 * np.random.default_rng(seed).normal(size=(3, 2))
    means = []
    for size in (1, 2, 3):
        groups = [g for g in product(range(3), repeat=size) if len(set(g)) == size]
        losses = [
            cross_entropy_losses(logits=logits[list(g)], label=0, average=average).ensemble
            for g in groups
        ]
        means.append(np.mean(losses))
    assert means[0] + 1e-12 >= means[1] >= means[2] - 1e-12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ensemble_excess(variance=-1.0, n_instances=2), r"variance=-1\.0"),
        (lambda: ensemble_excess(variance=1.0, n_instances=0), r"n_instances=0\.0"),
        (lambda: ensemble_excess(variance=1.0, n_instances=1.5), r"n_instances=1\.5"),
        (
            lambda: ensemble_loss(infinite_loss=-1.0, variance=1.0, n_instances=2),
            r"infinite_loss=-1\.0",
        ),
        (lambda: squared_losses(outputs=1.0, target=1.0), "outputs must have axes, members first;"),
        (lambda: squared_losses(outputs=[np.nan], target=1.0), "outputs=nan"),
        (lambda: squared_losses(outputs=[], target=1.0), r"outputs of shape \(0,\)"),
        (lambda: logistic_losses(logits=[1.0], target=0.0), "target must be -1 or 1"),
        (lambda: logistic_losses(logits=2.0, target=1.0), r"logits of shape \(\)"),
        (
            lambda: cross_entropy_losses(logits=[1.0], label=0, average="logits"),
            "members first and classes last",
        ),
        (
            lambda: cross_entropy_losses(logits=[[1.0]], label=0, average="votes"),
            "average='votes'",
        ),
        (
            lambda: cross_entropy_losses(logits=[[1.0, 2.0]], label=2, average="logits"),
            "below the number of classes 2, got label=2",
        ),
        (
            lambda: cross_entropy_losses(logits=[[1.0, 2.0]], label=[0, 0], average="logits"),
            r"label must have shape \(\), got label of shape \(2,\)",
        ),
        (
            lambda: cross_entropy_losses(logits=[[1.0, 2.0]], label=-1, average="logits"),
            r"label=-1\.0",
        ),
    ],
)
def test_rejections(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: squared_losses(outputs=[1e200, 0.0], target=0.5),
            r"^outputs, target must be .* got outputs=array up to 1e\+200, target=0.5$",
        ),
        (
            lambda: logistic_losses(logits=[1.7e308, 1.7e308], target=-1.0),
            r"^logits must be of a size .* got logits=array up to 1\.7e\+308$",
        ),
        (
            lambda: squared_losses(outputs=np.zeros((2, 3)), target=np.zeros(2)),
            r"^outputs, target must have shapes that broadcast, got outputs of \(3,\), target of",
        ),
        (
            lambda: logistic_losses(logits=np.zeros((2, 3)), target=np.ones(2)),
            r"^logits, target must have shapes that broadcast",
        ),
        (lambda: logistic_losses(logits=[0.0], target=0.5), "-1 or 1, got target=0.5$"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_squared_losses_average_over_members_alone():
    members = np.array([[0.0, 10.0], [2.0, 30.0]])
    got = squared_losses(outputs=members, target=np.array([1.0, 20.0]))
    assert_allclose(got.gap, [1.0, 100.0], rtol=IDENTITY)
    wide = squared_losses(outputs=members, target=np.zeros((4, 3, 2)))
    assert wide.gap.shape == (4, 3, 2)
    assert_allclose(wide.gap[2, 1], [1.0, 100.0], rtol=IDENTITY)
