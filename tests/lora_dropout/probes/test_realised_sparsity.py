"""Realised sparsity against zeros counted in a masked update, and against the wrong formula."""

import pytest
import torch
from scipy import stats

from lora_dropout import LoRADropoutConfig, adapters, sample_masks
from lora_dropout.probes import realised_sparsity as sparsity
from lora_dropout.probes.realised_sparsity import realised_sparsity
from tests.lora_dropout.probes.problems import linear_model
from tests.lora_dropout.strategies import generator, two_layers


@pytest.mark.parametrize("mask", ["row_column", "rank", "entrywise"])
def test_zeros_of_the_masked_update(mask: str) -> None:
    model = linear_model(mask=mask, dropout=0.4)
    got = realised_sparsity(model, n_draws=50, generator=generator(1))
    layer = adapters(model)["0"]
    masks = sample_masks(model, n_instances=50, generator=generator(1)).layers["0"]
    zeros = []
    for r in range(50):
        one = masks.select(r)
        A, B = layer.lora_A.detach(), layer.lora_B.detach()
        update = B @ A
        if mask == "row_column":
            update = (B * one.rows.T) @ (A * one.columns)
        elif mask == "rank":
            update = (B * one.ranks) @ A
        else:
            update = update * one.entries[0]
        zeros.append((update == 0).double().mean())
    assert got.realised == pytest.approx(float(torch.stack(zeros).mean()), abs=1e-12)
    assert got.layers == {"0": pytest.approx(got.realised)}
    assert got.expected == pytest.approx({"row_column": 0.64, "rank": 0.16, "entrywise": 0.4}[mask])
    assert got.bits == 50 * {"row_column": 7, "rank": 2, "entrywise": 12}[mask]
    assert got.interval.low < got.expected < got.interval.high


def test_layers_are_weighted_by_their_entries() -> None:
    model = two_layers(LoRADropoutConfig(rank=2, dropout=0.5))
    got = realised_sparsity(model, n_draws=20, generator=generator(2))
    sizes = {n: a.base_layer.weight.numel() for n, a in adapters(model).items()}
    assert len(sizes) == 2 and len(set(got.layers.values())) == 2
    mean = sum(got.layers[n] * sizes[n] for n in sizes) / sum(sizes.values())
    assert got.realised == pytest.approx(mean)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_limits(p: float) -> None:
    got = realised_sparsity(linear_model(dropout=p), n_draws=10, generator=generator(1))
    assert got.expected == got.realised == p
    end = got.interval.high if p else got.interval.low
    assert end == p and got.interval.low < got.interval.high


def test_the_interval_covers_although_entries_share_their_bits() -> None:
    """Entries taken for independent would give an interval that is too short."""
    model, n, p = linear_model(dropout=0.3), 10, 0.3
    q = 2 * p - p * p
    hits = naive = 0
    for seed in range(300):
        got = realised_sparsity(model, n_draws=n, generator=generator(seed), confidence=0.9)
        hits += got.interval.low <= q <= got.interval.high
        short = stats.binomtest(round(got.realised * n * 12), n * 12).proportion_ci(0.9)
        naive += short.low <= q <= short.high
    assert stats.binomtest(hits, 300, 0.9, alternative="less").pvalue > 1e-3
    assert stats.binomtest(naive, 300, 0.9, alternative="less").pvalue < 1e-3


def test_a_wrong_rate_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault: every entry dropped at rate p, not at 2p - p^2."""
    model = linear_model(dropout=0.4)
    other = linear_model(dropout=1 - 0.6**0.5)  # its update has sparsity 0.4
    monkeypatch.setattr(sparsity, "sample_masks", lambda _, **more: sample_masks(other, **more))
    got = realised_sparsity(model, n_draws=200, generator=generator(1))
    assert got.interval.high < got.expected
    assert got.interval.low < 0.4 < got.interval.high


def test_bad_input() -> None:
    for law in ("activation", "none"):
        with pytest.raises(ValueError, match=rf"mask must be a law that masks B A .*got '{law}'"):
            realised_sparsity(linear_model(mask=law))
    with pytest.raises(ValueError, match="n_draws must be at least 1, got n_draws=0"):
        realised_sparsity(linear_model(), n_draws=0)
