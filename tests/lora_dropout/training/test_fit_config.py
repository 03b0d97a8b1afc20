"""Settings of a training run."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest

from lora_dropout import FitConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("n_instances", 0),
        ("eval_instances", -1),
        ("evaluate_every", 0),
        ("checkpoint_every", 0),
        ("warmup_steps", -1),
        ("seed", -1),
        ("patience", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("weight_decay", -0.1),
        ("orthogonality", math.inf),
        ("max_grad_norm", 0),
        ("schedule", "step"),
        ("mode", "all"),
        ("inference", "best"),
        ("precision", "fp16"),
    ],
)
def test_bad_settings_are_named_with_their_value(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{field} must be .*{re.escape(f'{field}={value!r}')}$"):
        FitConfig(**{field: value})


def test_numpy_scalars_become_plain_numbers() -> None:
    config = FitConfig(
        learning_rate=np.float64(0.1),
        epochs=np.int64(3),
        max_grad_norm=np.float32(1),
        seed=np.int8(1),
    )
    values = dataclasses.asdict(config)
    assert json.loads(json.dumps(values)) == values
    for field in ("learning_rate", "epochs", "max_grad_norm", "seed"):
        assert type(values[field]) in (int, float)
