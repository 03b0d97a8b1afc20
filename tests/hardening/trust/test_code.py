"""Code in files: what would leave a mark if it were executed, wherever files are read."""

import contextlib
import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
import yaml

import lora_dropout as ld
from lora_bounds import counterexamples, measurements
from lora_dropout.adapters import folder as adapter_io
from lora_dropout.commands.fine_tuning import resume
from lora_dropout.commands.options import _read_file
from lora_dropout.commands.settings import TrainSettings
from lora_dropout.runs.store import Store
from lora_dropout.tasks.catalogue import find_task
from lora_dropout.tasks.text import hub_splits
from lora_dropout.training import checkpoint
from tests.hardening.inputs.dropout_arguments import model, net
from tests.hardening.lengths import lengths
from tests.hardening.packaged import from_package
from tests.hardening.trust import world
from tests.hardening.trust.hostile import Attack, wrong
from tests.hardening.trust.world import BOMBS, command, edit, fresh, stopped, trained

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own


_DATA = (torch.randn(8, 4), torch.arange(8) % 3)


def _adapter(name: str, content: bytes, *, peft: bool) -> object:
    folder = fresh()
    ld.save_adapter(model(), folder)
    if peft:
        (folder / adapter_io.OWN_CONFIG).unlink()
    if name != adapter_io.WEIGHTS:
        (folder / adapter_io.WEIGHTS).unlink()
    (folder / name).write_bytes(content)
    return ld.load_adapter(net(), folder)


def _checkpoint(content: bytes, read: Callable[[Path], object]) -> object:
    folder = fresh()
    (folder / "chunk-0000").mkdir()  # of replicas
    for place in (folder, folder / "chunk-0000"):
        # With the right digest: whoever plants a file can compute it.
        (place / checkpoint.NAME).write_bytes(
            bytes.fromhex(checkpoint.bytes_digest(content)) + content
        )
    return read(folder)


def _fit(folder: Path) -> object:
    adapted = ld.adapt(net(), ld.LoRADropoutConfig(rank=2))
    return ld.fit(adapted, _DATA, config=ld.FitConfig(epochs=1), checkpoint_folder=folder)


def _replicas(folder: Path) -> object:
    adapted = ld.adapt(net(), ld.LoRADropoutConfig(rank=2))
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
    return from_package(module, lambda: module.load(name))(folder)  # type: ignore[attr-defined]


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


@pytest.mark.parametrize("n", lengths(16, None))
def test_code_in_files_is_not_executed(n: int | None) -> None:
    assert wrong(attacks(), n) == []


@pytest.mark.parametrize("name", BOMBS)
def test_the_planted_code_is_live(name: str) -> None:
    mark = fresh() / "mark"
    content = BOMBS[name](mark)
    if name == "pickle":
        pickle.loads(content)
    else:
        torch.load(io.BytesIO(content), weights_only=False)
    assert mark.exists()


def test_an_unsafe_reader_is_seen() -> None:
    load = torch.load

    def unsafe(*arguments: object, **options: object) -> object:
        return load(*arguments, **{**options, "weights_only": False})

    with mock.patch("torch.load", unsafe):
        assert any("executed" in end for end in wrong(attacks(), at="checkpoint: read"))
        assert any("executed" in end for end in wrong(attacks(), at="--resume: rng_state.pth"))
    with mock.patch("yaml.safe_load", yaml.unsafe_load):
        assert any("executed" in end for end in wrong(attacks(), at="YAML"))


@pytest.mark.parametrize(
    "name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
)
def test_a_damaged_checkpoint_is_refused_by_the_name_of_the_file(name: str) -> None:
    folder = stopped()
    (path,) = folder.glob(f"checkpoint-*/{name}")
    whole = path.read_bytes()
    damaged = [whole[: len(whole) // 2], b""]
    if path.suffix != ".json":
        damaged.append(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])  # in the first part
    for content in damaged:
        path.write_bytes(content)
        status, printed = command(*world.train_options(folder, "--resume", "--epochs", 2))
        assert status == 2 and f"{name} is damaged" in printed, printed


@pytest.mark.parametrize("how", ["is_fsdp_enabled", "is_deepspeed_enabled"])
def test_checkpoints_that_are_pickles_are_refused(how: str) -> None:
    trainer = mock.Mock(**{"is_fsdp_enabled": False, "is_deepspeed_enabled": False, how: True})
    with pytest.raises(ValueError, match="--resume: checkpoints of FSDP and DeepSpeed are pickles"):
        resume(trainer, "checkpoint-1")
    trainer.train.assert_not_called()
    resume(trainer, None)
    trainer.train.assert_called_once()
