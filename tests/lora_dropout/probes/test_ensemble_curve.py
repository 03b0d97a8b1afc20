"""The ensemble's curve against all its subsets, and V/N against its closed form."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lora_dropout import ensemble_predict, enumerate_masks, expected_calibration_error, sample_masks
from lora_dropout.probes.ensemble_curve import ensemble_curve, member_outputs, squared_loss_law
from tests.lora_dropout.probes.problems import class_data, linear_data, linear_model
from tests.lora_dropout.strategies import ALGEBRA, close, generator, normal


def classifiers(count: int = 12, b: int = 9) -> tuple[Tensor, Tensor]:
    """Members that agree in part."""
    common = normal(b, 3, seed=1)
    _, targets = class_data(b, seed=2)
    return common + normal(count, b, 3, seed=3), targets


def test_members_are_those_of_the_ensemble() -> None:
    model, (x, _) = linear_model(), linear_data()
    masks = sample_masks(model, n_instances=5, generator=generator(1))
    members = member_outputs(model, x, masks)
    assert members.shape == (5, len(x), 3)
    close(members.mean(dim=0), ensemble_predict(model, x, masks=masks, average="logits"), ALGEBRA)
    assert (members[0] - members[1]).abs().max() > 0.01


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_against_all_subsets(average: str) -> None:
    members, targets = classifiers(6)
    got = ensemble_curve(
        members,
        targets,
        sizes=[1, 2, 3],
        average=average,  # type: ignore[arg-type]
        partitions=300,
    )
    for column, n in enumerate(got.sizes):
        found = []
        for chosen in itertools.combinations(range(6), n):
            picked = members[list(chosen)]
            mixed = (
                picked.softmax(-1).mean(0).log() if average == "probabilities" else picked.mean(0)
            )
            found.append(
                [
                    float(F.cross_entropy(mixed, targets)),
                    float((mixed.argmax(-1) == targets).double().mean()),
                    expected_calibration_error(mixed.softmax(-1), targets),
                ]
            )
        values = np.array(found)
        assert got.accuracy is not None and got.ece is not None
        mean = np.array([got.loss[column], got.accuracy[column], got.ece[column]])
        # Dealing out anew 300 times: 5 standard errors of so many random subsets.
        slack = 5 * values.std(axis=0) / math.sqrt(300) + ALGEBRA
        assert (np.abs(mean - values.mean(axis=0)) <= slack).all()


def test_errors_are_those_of_fresh_members() -> None:
    """Standard errors against the spread over many sets of members; N = 1 is a plain mean."""
    b, count, repeats = 5, 16, 300
    # As probabilities: the same loss, without accuracy and calibration, which nothing here reads.
    targets = F.one_hot(torch.arange(b) % 3, 3).double()
    curves = [
        ensemble_curve(normal(count, b, 3, seed=s), targets, sizes=[1, 4, 8], partitions=3)
        for s in range(repeats)
    ]
    spread = np.std([curve.loss for curve in curves], axis=0, ddof=1)
    stated = np.sqrt(np.mean([curve.loss_error**2 for curve in curves], axis=0))
    # Of a standard deviation from 300 values the relative error is 0.04; 3.7 of these.
    assert stated[0] == pytest.approx(spread[0], rel=0.15)
    # Several partitions: less spread than stated, never more.
    assert (stated[1:] > 0.85 * spread[1:]).all()
    # Not by much: an error ten times as large would also be "conservative".
    assert (stated[1:] < 2.0 * spread[1:]).all()


def test_loss_falls_with_the_size() -> None:
    members, targets = classifiers(64)
    got = ensemble_curve(members, targets, sizes=[1, 2, 4, 8, 16, 32])
    falls = -np.diff(got.loss)
    assert (falls > 0).all() and (got.loss_error > 0).all()


def test_regression_has_no_accuracy() -> None:
    members, targets = normal(8, 5, 2, seed=1), normal(5, 2, seed=2)
    got = ensemble_curve(members, targets, sizes=[1, 4], loss_fn=F.mse_loss, average="logits")
    assert got.accuracy is got.accuracy_error is got.ece is got.ece_error is None
    every = [float(F.mse_loss(member, targets)) for member in members]
    assert got.loss[0] == pytest.approx(np.mean(every))
    assert got.loss_error[0] == pytest.approx(np.std(every, ddof=1) / math.sqrt(8))


def test_squared_loss_law_of_all_masks_is_exact() -> None:
    """All masks as members: V and the limit are then those of the mask law itself."""
    model, (x, y) = linear_model(n1=2, n2=2, rank=1, dropout=0.5), linear_data(6, n1=2, n2=2)
    masks, weights = enumerate_masks(model)
    assert torch.allclose(weights, weights[0])  # p = 1/2: all alike, so plain means do
    members = member_outputs(model, x, masks)
    mean = members.mean(dim=0)
    variance = float((members - mean).square().mean())
    law = squared_loss_law(members, y)
    count = len(members)
    assert law.variance == pytest.approx(variance * count / (count - 1), rel=ALGEBRA)
    assert law.loss(1) == pytest.approx(float((members - y).square().mean()), rel=ALGEBRA)
    # The exact loss of all ensembles of 2 draws, with replacement: loss(mean) + V / 2.
    limit = float(F.mse_loss(mean, y))
    pairs = [F.mse_loss((a + b) / 2, y) for a, b in itertools.product(members, repeat=2)]
    assert float(torch.stack(pairs).mean()) == pytest.approx(limit + variance / 2, rel=ALGEBRA)


def test_squared_loss_law_is_unbiased_and_its_errors_are_right() -> None:
    targets = normal(4, seed=5)[:, None]
    center = normal(4, seed=6)[:, None]
    limit = float(F.mse_loss(center, targets))
    laws = [squared_loss_law(center + normal(12, 4, 1, seed=1000 + s), targets) for s in range(600)]
    for name, truth in (("limit", limit), ("variance", 1.0)):
        values = np.array([getattr(law, name) for law in laws])
        error = values.std(ddof=1)
        assert values.mean() == pytest.approx(truth, abs=4 * error / math.sqrt(600))
        stated = np.sqrt(np.mean([getattr(law, f"{name}_error") ** 2 for law in laws]))
        assert stated == pytest.approx(error, rel=0.2)  # the jackknife errs upwards by 1/M


def test_jackknife_leaves_members_out() -> None:
    members, targets = normal(7, 3, 2, seed=1), normal(3, 2, seed=2)
    got = squared_loss_law(members, targets)
    apart = [
        squared_loss_law(torch.cat([members[:i], members[i + 1 :]]), targets) for i in range(7)
    ]
    for name in ("limit", "variance"):
        values = np.array([getattr(law, name) for law in apart])
        want = math.sqrt(6 / 7 * ((values - values.mean()) ** 2).sum())
        assert getattr(got, f"{name}_error") == pytest.approx(want, rel=1e-9)


def test_the_two_ways_agree_on_squared_loss() -> None:
    model, (x, y) = linear_model(), linear_data()
    members = member_outputs(model, x, sample_masks(model, n_instances=64, generator=generator(3)))
    law = squared_loss_law(members, y)
    curve = ensemble_curve(members, y, sizes=[1, 2, 8, 32], loss_fn=F.mse_loss, average="logits")
    assert curve.loss[0] == pytest.approx(law.loss(1), rel=1e-9)
    for n, loss, error in zip(curve.sizes[1:], curve.loss[1:], curve.loss_error[1:], strict=True):
        assert abs(loss - law.loss(n)) < 4 * error


def test_bad_input() -> None:
    members, targets = classifiers(4)
    with pytest.raises(ValueError, match=r"sizes must be at most half of the 4 members, got sizes"):
        ensemble_curve(members, targets, sizes=[1, 3])
    with pytest.raises(ValueError, match=r"sizes must not be empty, got sizes=\(\)"):
        ensemble_curve(members, targets, sizes=())
    with pytest.raises(ValueError, match="sizes must be at least 1, got sizes=0"):
        ensemble_curve(members, targets, sizes=[0])
    with pytest.raises(ValueError, match=r"average must be one of .*, got average='mean'"):
        ensemble_curve(members, targets, sizes=[1], average="mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="partitions must be at least 1, got partitions=0"):
        ensemble_curve(members, targets, sizes=[1], partitions=0)
    with pytest.raises(ValueError, match=r"members must have shape \(M, b, ...\) and targets"):
        ensemble_curve(members, targets[:3], sizes=[1])
    with pytest.raises(ValueError, match=r"targets must have shape \(9, 3\), got \(9,\)"):
        squared_loss_law(members, targets)
    with pytest.raises(ValueError, match="members must be at least 3, got 2"):
        squared_loss_law(members[:2], members[0])
    with pytest.raises(ValueError, match="n_instances must be at least 1, got n_instances=0"):
        squared_loss_law(members, members[0]).loss(0)
