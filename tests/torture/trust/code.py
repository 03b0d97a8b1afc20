"""Code in files: what would leave a mark if it were executed, wherever files are read."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import nn

import lora_dropout as ld
from lora_bounds import counterexamples, measurements
from lora_dropout.adapters import folder as adapter_io
from lora_dropout.commands.options import _read_file
from lora_dropout.commands.settings import TrainSettings
from lora_dropout.runs.store import Store
from lora_dropout.tasks.catalogue import find_task
from lora_dropout.tasks.text import hub_splits
from lora_dropout.training import checkpoint
from tests.torture.inputs.dropout_cases import model
from tests.torture.inputs.readers import _from_package
from tests.torture.trust import world
from tests.torture.trust.world import BOMBS, command, edit, fresh, stopped, trained

REFUSED = (ValueError, TypeError, OSError)


@dataclass(frozen=True)
class Attack:
    """One hostile file.

    Attributes:
        place: Where it lies.
        how: What it is.
        read: Given the mark: plants the file and reads it. It raises one of `REFUSED`, or
            returns the status and text of a command, or anything else if the file does not matter.
        end: How it must end: `refused` or `not read`; either unless given.
        asks_hub: Whether the place may ask the hub, if it were there.
    """

    place: str
    how: str
    read: Callable[[Path], object]
    end: str = ""
    asks_hub: bool = False

    def held(self, found: str) -> bool:
        """Whether it ended as it must."""
        return found == self.end or (not self.end and found in ("refused", "not read"))


def outcome(attack: Attack) -> str:
    """What came of it: `refused`, `not read`, or what is wrong."""
    mark = fresh() / "mark"
    with world.forbidden() as reached:
        try:
            found = attack.read(mark)
            end = "not read"
            if isinstance(found, tuple) and isinstance(found[0], int) and found[0] != 0:
                end = "refused" if found[0] == 2 else f"status {found[0]}: {found[1]}"
        except REFUSED:
            end = "refused"
        except Exception as error:
            end = f"{type(error).__name__}: {str(error)[:100]}"
    if mark.exists():
        return "executed"
    return f"reached {reached[0]}" if reached and not attack.asks_hub else end


def _net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))


_DATA = (torch.randn(8, 4), torch.arange(8) % 3)


def _adapter(name: str, content: bytes, *, peft: bool) -> object:
    folder = fresh()
    ld.save_adapter(model(), folder)
    if peft:
        (folder / adapter_io.OWN_CONFIG).unlink()
    if name != adapter_io.WEIGHTS:
        (folder / adapter_io.WEIGHTS).unlink()
    (folder / name).write_bytes(content)
    return ld.load_adapter(_net(), folder)


def _checkpoint(content: bytes, read: Callable[[Path], object]) -> object:
    folder = fresh()
    (folder / "chunk-0000").mkdir()  # of replicas
    for place in (folder, folder / "chunk-0000"):
        # With the right digest: whoever plants a file can compute it.
        (place / checkpoint.NAME).write_bytes(checkpoint._digest(content) + content)
    return read(folder)


def _fit(folder: Path) -> object:
    adapted = ld.adapt(_net(), ld.LoRADropoutConfig(rank=2))
    return ld.fit(adapted, _DATA, config=ld.FitConfig(epochs=1), checkpoint_folder=folder)


def _replicas(folder: Path) -> object:
    adapted = ld.adapt(_net(), ld.LoRADropoutConfig(rank=2))
    runs = [ld.Replica(seed=0), ld.Replica(seed=1)]
    return ld.fit_replicas(adapted, _DATA, runs, config=ld.FitConfig(epochs=1),
                           checkpoint_folder=folder)  # fmt: skip


def _stored(content: bytes) -> object:
    store = Store(fresh())
    store.path({"a": 1}).write_bytes(content)
    return store.get({"a": 1})


def _base(name: str, content: bytes, **config: object) -> object:
    folder = world.save_tiny_bert(fresh() / "bert")
    if name.endswith(".bin"):
        (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    if config:
        edit(folder / "config.json", **config)
    return command(*world.train_options(fresh() / "out", model=folder))


def _used(name: str, content: bytes, action: str) -> object:
    folder = trained()
    if name == "adapter_model.bin":
        (folder / adapter_io.WEIGHTS).unlink()
    (folder / name).write_bytes(content)
    if action == "evaluate":
        return command("evaluate", folder, "--data", world.data())
    output = fresh() / "answers"
    return command("predict", folder, "--input", world.data() / "dev.tsv", "--output", output)


def _resumed(name: str, content: bytes) -> object:
    folder = stopped()
    (checkpoint,) = folder.glob("checkpoint-*")
    (checkpoint / name).write_bytes(content)
    return command(*world.train_options(folder, "--resume", "--epochs", 2))


def _yaml(text: str) -> object:
    path = fresh() / "settings.yaml"
    path.write_text(text)
    return _read_file(TrainSettings, path)


def _task(task: str, name: str, content: bytes) -> object:
    folder = fresh()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    return find_task(task).load(folder)


def _script(mark: Path, folder: str, read: Callable[[], object]) -> object:
    home = fresh()
    place = home / folder
    place.mkdir(parents=True)
    text = f"open({str(mark)!r}, 'w')\n"
    for name in (f"{place.name}.py", "dataset.py", "__init__.py", "conftest.py"):
        (place / name).write_text(text)
    with contextlib.chdir(home):
        return read()


def _packaged(module: object, content: bytes) -> object:
    folder = fresh()
    (folder / "data").mkdir()
    name = module.ids()[0]  # type: ignore[attr-defined]
    (folder / "data" / f"{name}.json").write_bytes(content)
    return _from_package(module, lambda: module.load(name))(folder)  # type: ignore[attr-defined]


def _tags(mark: Path) -> Iterator[str]:
    touch = f"!!python/object/apply:builtins.open [{str(mark)!r}, w]"
    yield f"task: {touch}\n"
    yield f"{touch}: 1\n"
    yield f"rank: &a {touch}\nalpha: *a\n"
    yield f"model: !!python/object/new:builtins.open [{str(mark)!r}, w]\n"
    yield f"model: !!python/object/apply:os.system ['touch {mark}']\n"
    yield f"!!python/object/apply:subprocess.Popen [[touch, {str(mark)!r}]]\n"
    yield yaml.dump(world.Bomb(mark))


_TASKS = {
    "sst2": "train.tsv", "instructions": "train.json", "squad": "train-v1.1.json",
    "mmlu": "test/x_test.csv",
}  # fmt: skip
CHECKPOINT_FILES = (
    *("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "scaler.pt"),
    *("adapter_model.safetensors", "adapter_model.bin", "pytorch_model.bin", "trainer_state.json"),
    *("model.safetensors", "adapter_config.json", "tokenizer.json"),
)


def attacks() -> list[Attack]:
    """All hostile files, the costly places last."""
    found = []

    def add(place: str, read: Callable[[bytes], object]) -> None:
        for how, bomb in BOMBS.items():
            found.append(Attack(place, how, lambda mark, bomb=bomb: read(bomb(mark))))

    for peft in (False, True):
        whose = "of PEFT" if peft else "of ours"
        for name in (adapter_io.WEIGHTS, "adapter_model.bin", "adapter_model.pt"):
            add(f"adapter {whose}: {name}", lambda c, n=name, p=peft: _adapter(n, c, peft=p))
    readers = {"fit": _fit, "replicas": _replicas,
               "read": lambda f: checkpoint.load_checkpoint(f, settings={})}  # fmt: skip
    for who, read in readers.items():
        add(f"checkpoint: {who}", lambda content, read=read: _checkpoint(content, read))
    add("store", _stored)
    add("measurement", lambda content: _packaged(measurements, content))
    add("counterexample", lambda content: _packaged(counterexamples, content))
    for task, name in _TASKS.items():
        add(f"data: {task}", lambda content, task=task, name=name: _task(task, name, content))
    for i in range(len([*_tags(Path("x"))])):
        found.append(Attack("YAML settings", f"tag {i}", lambda m, i=i: _yaml([*_tags(m)][i])))
    add("YAML settings", lambda content: _yaml(content.decode("latin-1")))
    for task in ("sst2", "mmlu", "instructions", "squad"):
        found.append(Attack(f"data: script in the folder, {task}", "script", lambda m, t=task:
                            _script(m, t, lambda: find_task(t).load(Path(t)))))  # fmt: skip
    for name in ("nyu-mll/glue", "cais/mmlu"):
        found.append(Attack("data: script in a folder of the hub's name", name, lambda m, n=name:
                            _script(m, n, lambda: hub_splits(n)), asks_hub=True))  # fmt: skip
    for name in ("pytorch_model.bin", "model.safetensors", "tokenizer.json", "config.json",
                 "model.safetensors.index.json"):  # fmt: skip
        add(f"base model: {name}", lambda content, name=name: _base(name, content))
    add("base model: adapter_model.bin that the settings name", lambda content: _base(
        "adapter_model.bin", content, transformers_weights="adapter_model.bin"))  # fmt: skip
    for name in (adapter_io.WEIGHTS, "adapter_model.bin", "run.json", "adapter_config.json"):
        for action in ("evaluate", "predict"):
            add(f"{action}: {name}", lambda c, name=name, action=action: _used(name, c, action))
    for name in CHECKPOINT_FILES:
        add(f"--resume: {name}", lambda content, name=name: _resumed(name, content))
    return found
