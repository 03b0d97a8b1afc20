"""Wheel and sdist, each in a fresh environment: `python -m tests.dist_check` (`make dist-check`).

Each is installed bare, which must be enough for `lora_bounds` and must make `lora_dropout` say what
it needs, and then with the extra `torch`, which must be enough to train.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]

BARE = """
import importlib.util, subprocess, sys
from importlib.metadata import version
from pathlib import Path

import lora_bounds

assert importlib.util.find_spec("torch") is None
package = Path(lora_bounds.__file__).parent
assert package.is_relative_to(sys.prefix), package
found = {str(p.relative_to(package)) for p in package.rglob("*.json")}
assert found == set(sys.argv[2:]), found ^ set(sys.argv[2:])
assert (package / "py.typed").is_file() and (package.parent / "lora_dropout/py.typed").is_file()
assert version("lora-dropout") == sys.argv[1], version("lora-dropout")

bound = lora_bounds.theorem_4_4(
    n=3668, delta=0.05, dropout=0.5, lipschitz=1.0, curvature=0.0, regularization=1.0,
    loss_range=1.0, empirical_risk=0.1,
)
assert 0.1 < bound.value < 1 and not bound.vacuous
for name in lora_bounds.__all__:
    getattr(lora_bounds, name)

def command(name, *arguments):
    path = Path(sys.prefix) / "bin" / name
    return subprocess.run([path, *arguments], capture_output=True, text=True)

assert "Clopper-Pearson" in command("lora-bounds", "show").stdout
for arguments in (
    ("bound", "--n", "3668", "--dropout", "0.5"),
    ("verify", "--only", "A.3", "--only", "Digits, gap over p"),  # a counterexample, a measurement
):
    done = command("lora-bounds", *arguments)
    assert done.returncode == 0 and done.stdout, done.stderr

try:
    import lora_dropout
except ImportError as error:
    assert "pip install 'lora-dropout[torch]'" in str(error), error
else:
    raise AssertionError("lora_dropout was imported without torch")
done = command("lora-dropout", "--help")
assert done.returncode != 0
assert "pip install 'lora-dropout[torch]', or 'lora-dropout[hf]'" in done.stderr, done.stderr
"""

WITH_TORCH = """
import torch
from lora_dropout import (
    FitConfig, LoRADropoutConfig, adapt, ensemble_predict, fit, load_adapter, save_adapter
)
from lora_dropout.audit import audit

def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 2))

model, x = network(), torch.randn(32, 4)
data = x, x[:, 0].gt(0).long()
adapt(model, LoRADropoutConfig(rank=2, alpha=4, dropout=0.5, target_modules="0"))
config = FitConfig(epochs=3, learning_rate=1e-2, n_instances=4)
fit(model, data, held_out=data, config=config)
save_adapter(model, "adapter")
again = network()
load_adapter(again, "adapter")
assert torch.equal(*(
    ensemble_predict(m, x, n_instances=4, generator=torch.Generator().manual_seed(0))
    for m in (model, again)
))
"""


def _run(python: Path, *arguments: str | Path, folder: Path) -> None:
    subprocess.run([python, *arguments], cwd=folder, check=True)


def check(archive: Path, version: str, folder: Path) -> None:
    """Install an archive into a fresh environment in the folder, bare, then with torch."""
    venv.create(folder / "env", with_pip=True)
    python = folder / "env/bin/python"
    install = ("-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt")
    package = ROOT / "lora_bounds"
    data = sorted(str(path.relative_to(package)) for path in package.rglob("*.json"))
    _run(python, *install, archive, folder=folder)
    _run(python, "-I", "-c", BARE, version, *data, folder=folder)
    _run(python, *install, f"lora-dropout[torch] @ {archive.as_uri()}", folder=folder)
    _run(python, "-I", "-c", WITH_TORCH, folder=folder)
    print(f"{archive.name}: holds")


def main() -> None:
    """Build both archives and check each."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        build = ("-m", "build", "--quiet", "--outdir", folder / "dist", ROOT)
        _run(Path(sys.executable), *build, folder=folder)
        archives = sorted((folder / "dist").iterdir())
        assert {path.suffix for path in archives} == {".whl", ".gz"}
        (wheel,) = (folder / "dist").glob("*.whl")
        for archive in archives:
            place = folder / archive.suffix.strip(".")
            place.mkdir()
            check(archive, wheel.name.split("-")[1], place)


if __name__ == "__main__":
    main()
