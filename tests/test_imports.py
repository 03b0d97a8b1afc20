"""What `import` brings along: names that exist, and nothing slow or optional."""

import importlib
import subprocess
import sys

import pytest

HEAVY = {
    "lora_bounds": ["torch", "scipy", "sympy", "hypothesis", "flint"],
    "lora_dropout": ["torchmetrics", "transformers", "peft", "ray", "matplotlib", "scipy", "sympy"],
}


@pytest.mark.parametrize("package", HEAVY)
def test_an_import_brings_nothing_slow_along(package: str) -> None:
    code = f"import sys, {package}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(HEAVY[package]) & set(done.stdout.split())


@pytest.mark.parametrize("package", HEAVY)
def test_every_public_name_exists(package: str) -> None:
    module = importlib.import_module(package)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert name in dir(module)
    with pytest.raises(AttributeError, match="no_such_name"):
        module.no_such_name  # noqa: B018
