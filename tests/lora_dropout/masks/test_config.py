"""The adapter settings and their two factors."""

import dataclasses
import json
import math

import attrs
import numpy as np
import pytest
from hypothesis import given

from lora_dropout import LAWS, LoRADropoutConfig, mean_factor
from lora_dropout.peft import AttachConfig
from tests.lora_dropout.strategies import IDENTITY, inner_rates


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("dropout", -0.1, ValueError, r"dropout must be in \[0, 1\], got dropout=-0.1"),
        ("dropout", 1.5, ValueError, r"dropout must be in \[0, 1\], got dropout=1.5"),
        ("dropout", math.nan, ValueError, r"dropout must be in \[0, 1\], got dropout=nan"),
        ("rank", 0, ValueError, "rank must be at least 1, got rank=0"),
        ("rank", 2.0, TypeError, "rank must be an integer, got rank=2.0"),
        ("alpha", 0.0, ValueError, "alpha must be positive and finite, got alpha=0.0"),
        ("mask", "rows", ValueError, "mask must be one of .*, got mask='rows'"),
        ("inference", "ensemble", ValueError, "inference must be .*, got inference='ensemble'"),
        ("adapter", "dora", ValueError, "adapter must be one of .*, got adapter='dora'"),
        ("rescale", 1, TypeError, "rescale must be a bool, got rescale=1"),
        ("target_modules", (), ValueError, r"target_modules must name .*, got \(\)"),
        ("target_modules", (3,), TypeError, "target_modules must be a tuple of module names"),
        ("modules_to_save", "head", TypeError, "modules_to_save must be .*modules_to_save='head'"),
    ],
)
def test_bad_settings(field: str, value: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LoRADropoutConfig(**{field: value})


def test_settings_are_frozen_and_hold_plain_numbers() -> None:
    config = LoRADropoutConfig(rank=np.int64(2), alpha=np.float32(4), dropout=np.float64(0.25))
    assert json.loads(json.dumps(dataclasses.asdict(config)))["rank"] == 2
    assert (type(config.rank), type(config.alpha), type(config.dropout)) == (int, float, float)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config.rank = 3  # type: ignore[misc]


def test_dataclasses_take_settings_for_their_own() -> None:
    config = LoRADropoutConfig(rank=2)
    changed = dataclasses.replace(config, dropout=0.25)  # type: ignore[type-var]
    assert (type(changed), changed) == (LoRADropoutConfig, LoRADropoutConfig(rank=2, dropout=0.25))
    with pytest.raises(ValueError, match="dropout must be in"):
        dataclasses.replace(config, dropout=2)  # type: ignore[type-var]
    names = [field.name for field in dataclasses.fields(AttachConfig)]  # type: ignore[arg-type]
    assert names == ["dropout", "mask", "rescale", "inference", "n_instances"]
    assert AttachConfig().rescale is True


def test_lists_of_names_become_tuples() -> None:
    config = LoRADropoutConfig(target_modules=["a"], modules_to_save=["b"])  # type: ignore[arg-type]
    assert config.target_modules == ("a",)
    assert config.modules_to_save == ("b",)


@given(inner_rates())
def test_factors(p: float) -> None:
    expected = {
        "row_column": (1 - p) ** 2,
        "rank": 1 - p,
        "entrywise": 1 - p,
        "activation": 1.0,
        "none": 1.0,
    }
    for law in LAWS:
        off = LoRADropoutConfig(mask=law, dropout=p)
        on = LoRADropoutConfig(mask=law, dropout=p, rescale=True)
        assert off.mean_factor == pytest.approx(expected[law], abs=IDENTITY)
        assert off.mask_scale == 1.0
        assert on.mean_factor == 1.0
        assert on.mask_scale == pytest.approx(1 / expected[law], rel=IDENTITY)


@pytest.mark.parametrize("law", ["row_column", "rank", "entrywise", "activation"])
@pytest.mark.parametrize("rescale", [False, True])
def test_nothing_is_left_at_rate_one(law: str, rescale: bool) -> None:
    config = LoRADropoutConfig(mask=law, dropout=1.0, rescale=rescale)  # type: ignore[arg-type]
    assert config.mean_factor == 0.0
    assert math.isfinite(config.mask_scale)


def test_mean_factor_checks_its_arguments() -> None:
    with pytest.raises(ValueError, match=r"law must be one of .*, got law='x'"):
        mean_factor("x", 0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"dropout must be in .*, got dropout=2"):
        mean_factor("rank", 2)
