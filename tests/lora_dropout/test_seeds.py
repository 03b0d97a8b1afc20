"""Seeds: all bits count, and no two purposes share a stream."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from lora_dropout import FitConfig, LoRADropoutConfig, adapt, fit
from lora_dropout.adapters.use_masks import sample_masks
from lora_dropout.masks.draw import draw_layer_masks
from lora_dropout.replicas import Replica, fit_replicas
from lora_dropout.seeds import (
    TORCH_BITS,
    check_seed,
    derived_generator,
    derived_seed,
    seeded_generator,
)

SEEDS = [0, 1, 7, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**33, 2**40, 2**40 + 7, 2**62, 2**63 - 1]
PURPOSES = ("training", "evaluation", "retraining", "model")


def words(generator: torch.Generator, n: int = 2000) -> set[int]:
    drawn = torch.randint(-(2**63), 2**63 - 1, (n,), generator=generator)
    return set(drawn.tolist())


def small(seed: int = 0) -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    adapt(model, LoRADropoutConfig(rank=1), generator=seeded_generator(seed))
    x = torch.randn(11, 4, generator=seeded_generator(3))
    return model, (x, (x[:, 0] > 0).long())


def test_no_two_streams_meet() -> None:
    streams = [seeded_generator(seed) for seed in SEEDS]
    streams += [derived_generator(seed, purpose) for seed in SEEDS for purpose in PURPOSES]
    # 64-bit words come in pairs of 32 bits: an odd offset would hide a shared stream.
    halves: list[int] = []
    for stream in streams:
        drawn = words(stream)
        assert len(drawn) == 2000
        halves += drawn
    assert len(set(halves)) == len(halves)
    shifted = [torch.Generator().manual_seed(seed) for seed in (0, 1, 7)]
    for stream in shifted:
        torch.randperm(2, generator=stream)  # one word of 32 bits
        assert not words(stream) & set(halves)


def test_small_seeds_are_torchs_own() -> None:
    for seed in (0, 5, TORCH_BITS):
        assert words(seeded_generator(seed)) == words(torch.Generator().manual_seed(seed))


def test_a_derived_stream_is_the_same_everywhere() -> None:
    drawn = torch.randint(2**16, (2,), generator=derived_generator(2**40, "evaluation"))
    twister, seeds = np.random.MT19937(), np.random.SeedSequence([2**40, *b"evaluation"])
    key = seeds.generate_state(624)
    twister.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": 624}}
    assert drawn.tolist() == (twister.random_raw(2) % 2**16).tolist()
    state = derived_generator(5, "training").get_state()
    again = torch.Generator()
    again.set_state(state)
    assert words(again) == words(derived_generator(5, "training"))
    assert torch.rand(1000, generator=derived_generator(1, "training")).mean() == pytest.approx(
        0.5, abs=0.05
    )


def test_derived_seeds_are_nobodys() -> None:
    derived = [derived_seed(seed, purpose) for seed in SEEDS for purpose in PURPOSES]
    assert len(set(derived)) == len(derived)
    assert all(check_seed("seed", seed) >= 2**62 for seed in derived)


@pytest.mark.parametrize("seed", [0, 3, 2**32 - 1, 2**32 + 3, 2**40])
def test_training_and_evaluation_share_no_mask(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[bool, list[int]] = {True: [], False: []}
    steps: list[bool] = []  # not empty while a training step draws
    model, data = small()

    def spy(specs, seeds, **named):
        drawn[bool(steps)].extend(seeds.tolist())
        return draw_layer_masks(specs, seeds, **named)

    def step(*given, **named):
        steps.append(True)
        masks = sample_masks(*given, **named)
        steps.clear()
        return masks

    monkeypatch.setattr(sys.modules["lora_dropout.adapters.use_masks"], "draw_layer_masks", spy)
    monkeypatch.setattr("lora_dropout.training.fit.sample_masks", step)
    fit(model, data, config=FitConfig(epochs=3, batch_size=4, seed=seed), progress=False)
    assert len(set(drawn[True])) == len(drawn[True]) == 3 * 3 * 4
    assert len(set(drawn[False])) == 8
    assert not set(drawn[True]) & set(drawn[False])
    # Nor does a caller's own generator of the same seed meet them, at any offset.
    own = words(torch.Generator().manual_seed(seed))
    assert not own & (set(drawn[True]) | set(drawn[False]))


def test_no_bit_of_a_seed_is_lost() -> None:
    def losses(seed: int) -> list[float]:
        model, data = small()
        return [
            record["train_loss"]
            for record in fit(
                model, data, config=FitConfig(epochs=1, seed=seed), progress=False
            ).history
        ]

    assert len({losses(seed)[-1] for seed in (0, 2**32, 2**40)}) == 3
    model, data = small()
    seeds = (0, 2**32, 2**40)
    replicas = [Replica(seed=0, init_seed=seed) for seed in seeds]
    replicas += [Replica(seed=seed, init_seed=0) for seed in seeds]
    trained = fit_replicas(model, data, replicas, config=FitConfig(epochs=2), progress=False)
    distinct = {tuple(row.tolist()) for row in trained.parameters["0.lora_A"].flatten(1)}
    assert len(distinct) == 5
    outputs = [trained.outputs(model, data[0], inference="ensemble", seed=seed) for seed in seeds]
    assert not torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64])
def test_other_seeds_are_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="seed must be at"):
        FitConfig(seed=seed)
    with pytest.raises(ValueError, match="seed must be at"):
        Replica(seed=seed)
    with pytest.raises(ValueError, match="seed must be at"):
        Replica(init_seed=seed)
