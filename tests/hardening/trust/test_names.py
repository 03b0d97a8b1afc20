"""Names in files that lead elsewhere: another folder, a model, a module, a link, code beside it."""

import contextlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import safetensors.torch

import lora_dropout as ld
from lora_dropout.adapters import folder as adapter_io
from lora_dropout.runs.store import Store
from lora_dropout.training.checkpoint import save_checkpoint
from tests.hardening.inputs.dropout_arguments import model
from tests.hardening.lengths import lengths
from tests.hardening.trust import world
from tests.hardening.trust.hostile import Attack, wrong
from tests.hardening.trust.world import command, edit, fresh, stopped, trained

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own

ELSEWHERE = (
    "../../{0}/x.safetensors",
    "../../../../../../../../../..{1}",
    "{1}",
    "x/../../{0}/x",
    "..",
)
HUB = "someone/model"


def _moved_shard(name: str) -> object:
    folder = world.save_tiny_bert(fresh() / "bert")
    outside = world.fresh()
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    target = outside / "x.safetensors"
    safetensors.torch.save_file(weights, target, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    shard = name.format(outside.name, target)
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, shard)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return command(*world.train_options(fresh() / "out", model=folder))


def _index_of_a_subfolder(named: str) -> object:
    """An index in a folder below, whose shards would be looked for from the model's folder."""
    folder = world.save_tiny_bert(fresh() / "bert")
    outside = folder.with_name("x.safetensors")
    (folder / "model.safetensors").rename(outside)
    (folder / named).parent.mkdir()
    index = {"metadata": {}, "weight_map": dict.fromkeys(safetensors.torch.load_file(outside),
                                                         "../x.safetensors")}  # fmt: skip
    (folder / named).write_text(json.dumps(index))
    edit(folder / "config.json", transformers_weights=named)
    return command(*world.train_options(fresh() / "out", model=folder))


def _hub_model_is_an_adapter(named: str) -> object:
    """As the hub's cache holds it."""
    cache, commit = fresh(), "0" * 40
    repository = cache / f"models--{HUB.replace('/', '--')}"
    folder = repository / "snapshots" / commit
    folder.parent.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    world.save_tiny_bert(folder)
    (folder / "model.safetensors").unlink()
    for name in ("adapter_config.json", adapter_io.WEIGHTS):
        (folder / name).write_bytes((trained() / name).read_bytes())
    edit(folder / "adapter_config.json", base_model_name_or_path=named)
    with (
        mock.patch("huggingface_hub.constants.HF_HUB_CACHE", str(cache)),
        mock.patch("huggingface_hub.constants.HF_HUB_OFFLINE", True),
    ):
        status, printed = command(*world.train_options(fresh() / "out", model=HUB))
    if status == 2 and "holds an adapter" not in printed:
        raise AssertionError(f"refused for another reason: {printed}")
    return status, printed


def _base(**config: object) -> object:
    folder = world.save_tiny_bert(fresh() / "bert")
    edit(folder / "config.json", **config)
    return command(*world.train_options(fresh() / "out", model=folder))


def _base_is_an_adapter(named: object) -> object:
    folder = trained()
    edit(folder / "adapter_config.json", base_model_name_or_path=str(named))
    return command(*world.train_options(fresh() / "out", model=folder))


def _tokenizer(key: str) -> object:
    folder = world.save_tiny_bert(fresh() / "bert")
    outside = fresh() / "tokenizer.json"
    outside.write_text("no JSON: an error if it is read")
    edit(folder / "tokenizer_config.json", **{key: str(outside)})
    return command(*world.train_options(fresh() / "out", model=folder))


def _adapter(**settings: object) -> Callable[[Path], object]:
    def read(mark: Path) -> object:
        folder = trained()
        changed = {k: v(mark) if callable(v) else v for k, v in settings.items()}
        edit(folder / "adapter_config.json", **changed)
        return command("evaluate", folder, "--data", world.data())

    return read


def _module(mark: Path) -> str:
    """A module beside the adapter, importable as in a shell that stands there."""
    folder = fresh()
    name = f"planted_{folder.name.replace('-', '_')}"
    (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'w')\n")
    sys.path.append(str(folder))
    return name


def _inner_adapter(mark: Path) -> object:
    folder = stopped()
    (checkpoint,) = folder.glob("checkpoint-*")
    inner = checkpoint / "second"
    inner.mkdir()
    content = world.torch_zip(mark)
    (inner / "adapter_model.bin").write_bytes(content)
    (inner / "adapter_config.json").write_text((folder / "adapter_config.json").read_text())
    return command(*world.train_options(folder, "--resume", "--epochs", 2))


def _run(**settings: object) -> object:
    folder = trained()
    record = json.loads((folder / "run.json").read_text())
    record["settings"] |= settings
    record["local_model"] = True
    (folder / "run.json").write_text(json.dumps(record))
    return command("evaluate", folder, *(() if "data" in settings else ("--data", world.data())))


def _missing(name: str) -> object:
    """A folder of which a file is gone, named as a repository of the hub is."""
    folder = trained()
    (folder / name).unlink()
    with contextlib.chdir(folder.parent.parent):
        return command("evaluate", folder.relative_to(Path.cwd()), "--data", world.data())


def _written(mark: Path, write: Callable[[Path], object], name: str) -> object:
    """A link where a file is written: what it points to must stay as it is."""
    folder, victim = fresh() / "out", fresh() / "victim"
    victim.write_text("untouched")
    (folder / name).parent.mkdir(parents=True)
    (folder / name).symlink_to(victim)
    try:
        return write(folder)
    finally:
        if victim.read_text() != "untouched":
            mark.touch()


def _linked_run(mark: Path) -> object:
    folder, victim = trained(), fresh() / "victim"
    victim.write_text("untouched")
    (folder / "evaluation.json").symlink_to(victim)
    found = command("evaluate", folder, "--data", world.data())
    if victim.read_text() != "untouched" or found[0] != 0:
        mark.touch()
    return found


_SETTINGS: dict[str, dict[str, object]] = {
    "kind": {"peft_type": "XLORA", "adapters": {"0": HUB}},
    "another kind": {"peft_type": "LOHA"},
    "module": {"megatron_config": {"a": 1}, "megatron_core": _module},
    "module alone": {"megatron_core": _module},
    "statistics": {"init_lora_weights": "corda", "corda_config": {"covariance_file": "/etc/x"}},
    "start": {"init_lora_weights": "pissa"},
    "quantization": {"loftq_config": {"loftq_bits": 4}, "init_lora_weights": "loftq"},
}
_IGNORED: dict[str, dict[str, object]] = {
    "base": {"base_model_name_or_path": HUB, "revision": "x"},
    "class": {"auto_mapping": {"base_model_class": "system", "parent_library": "os"}},
}
_WRITES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "save_adapter": (lambda f: ld.save_adapter(model(), f), adapter_io.WEIGHTS, "not read"),
    "checkpoint": (lambda f: save_checkpoint(f, {"settings": {}}), "checkpoint.pt", "not read"),
    "store": (lambda f: Store(f).put({"a": 1}, 1), Store("x").path({"a": 1}).name, "not read"),
    "train": (lambda f: command(*world.train_options(f)), adapter_io.WEIGHTS, "refused"),
    "train, its tokenizer": (
        lambda f: command(*world.train_options(f)),
        "tokenizer_config.json",
        "refused",
    ),
}
_CELLS = ({"a": "../../x"}, {"../../x": 1}, {"a": "/x\0"})
_WEIGHTS = ("../x.safetensors", "/x.safetensors", "../x.safetensors.index.json")
_KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation")
_TOKENIZER = ("tokenizer_file", "vocab_file", "merges_file", "chat_template_file")


def attacks() -> list[Attack]:
    """All of them."""
    found: list[Attack] = []

    def add(place: str, how: str, read: Callable[[Path], object], end: str = "refused") -> None:
        found.append(Attack(place, how, read, end))

    for name in ELSEWHERE:
        add("index of shards", name, lambda m, n=name: _moved_shard(n))  # type: ignore[misc]
    for name in _WEIGHTS:
        add("weights that config.json names", name, lambda m, n=name: _base(transformers_weights=n))
    add(
        "weights that config.json names",
        "an index in a subfolder",
        lambda m: _index_of_a_subfolder("sub/model.safetensors.index.json"),
    )
    for key in _KERNELS:
        add("kernel that config.json names", key, lambda m, k=key: _base(**{k: "someone/kernel"}))
    for named in (HUB, str(world.base()), "../bert"):
        add("base model that is an adapter", named, lambda m, n=named: _base_is_an_adapter(n))
    add(
        "base model that is an adapter",
        "on the hub",
        lambda m: _hub_model_is_an_adapter(str(world.base())),
    )
    for key in _TOKENIZER:
        add(
            "file that tokenizer_config.json names", key, lambda m, k=key: _tokenizer(k), "not read"
        )
    for how, changed in _SETTINGS.items():
        add("adapter_config.json", how, _adapter(**changed))
    for how, changed in _IGNORED.items():
        add("adapter_config.json, not followed", how, _adapter(**changed), "not read")
    add("adapter inside a checkpoint", "folder", _inner_adapter)
    for data in ("../data", "/data", str(world.data())):
        add("run.json: data", data, lambda m, d=data: _run(data=d))
    add("run.json: output", "../x", lambda m: _run(output="../x"), "not read")
    add("run.json: a model's folder that is gone", "a/b", lambda m: _run(model="models/bert"))
    for name in ("adapter_config.json", adapter_io.WEIGHTS, "run.json"):
        add("run without a file", name, lambda m, n=name: _missing(n))
    for who, (write, name, end) in _WRITES.items():
        add("link where is written", who, lambda m, w=write, n=name: _written(m, w, n), end)
    add("link where is written", "evaluate", _linked_run, "not read")
    for cell in _CELLS:
        add("store: keys", str(cell), lambda m, c=cell: _cell(m, c), "not read")
    return found


def _cell(mark: Path, cell: dict[str, object]) -> object:
    folder = fresh() / "store"
    before = {*folder.parent.rglob("*")}
    Store(folder).put(cell, 1)
    if {p.parent for p in {*folder.parent.rglob("*")} - before - {folder}} != {folder}:
        mark.touch()
    return Store(folder).get(cell)


_NAME = "trust_remote_code"


def model_with_code(mark: Path, *, kind: str = "stranger") -> Path:
    """A model folder whose settings name Python files beside them.

    Args:
        mark: What the files leave where they run.
        kind: `stranger` is a kind of model that only its code knows; `bert` goes without.

    Returns:
        The folder.
    """
    folder = world.save_tiny_bert(fresh() / "bert")
    classes = {"AutoConfig": "code.Config", "AutoTokenizer": ["code.Tokens", "code.Tokens"]}
    classes["AutoModelForSequenceClassification"] = "code.Model"
    edit(folder / "config.json", auto_map=classes, model_type=kind)
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.Tokens", None]})
    (folder / "code.py").write_text(f"open({str(mark)!r}, 'w')\n")
    return folder


def _trained_on(mark: Path, record: str, action: str, *flags: str) -> object:
    folder, model = trained(), model_with_code(mark)
    changed = {"model": str(model), _NAME: True}
    content = json.loads((folder / "run.json").read_text())
    if record == "run.json":
        content["settings"] |= changed
    else:
        content["settings"]["model"] = str(model)
        edit(folder / record, **{_NAME: True}, base_model_name_or_path=str(model))
    (folder / "run.json").write_text(json.dumps(content))
    if action == "evaluate":
        return command("evaluate", folder, "--data", world.data(), *flags)
    output = fresh() / "answers"
    return command("predict", folder, "--input", world.data() / "dev.tsv", "--output", output)


def _asked(mark: Path, kind: str, *flags: str) -> object:
    model = model_with_code(mark, kind=kind)
    status, printed = command(*world.train_options(fresh() / "out", *flags, model=model))
    if status == 2 and "--trust-remote-code" not in printed:
        raise AssertionError(f"the message does not name the flag: {printed}")
    return status, printed


def remote_attacks() -> list[Attack]:
    """Code beside a model; nothing asked for it."""
    found = [
        Attack("model folder with code", "train", lambda m: _asked(m, "stranger"), "refused"),
        Attack("model folder with code", "dry run", lambda m: _asked(m, "stranger", "--dry-run"),
               "refused"),
        Attack("model folder with code, not needed", "train", lambda m: _asked(m, "bert")),
    ]  # fmt: skip
    for record in ("run.json", "adapter_config.json"):
        for action in ("evaluate", "predict"):
            found.append(Attack(f"{_NAME} in {record}", action, lambda m, r=record, a=action:
                                _trained_on(m, r, a), "refused"))  # fmt: skip
    return found


def runs_when_asked() -> bool:
    """Whether the code runs with the flag: that the attacks are real."""
    mark = fresh() / "mark"
    try:
        _asked(mark, "stranger", "--trust-remote-code")
    except Exception:  # the code is no model
        return mark.exists()
    return mark.exists()


@pytest.mark.parametrize("n", lengths(12, None))
def test_names_in_files_lead_nowhere(n: int | None) -> None:
    assert wrong(attacks(), n) == []


def test_names_that_lead_out_of_a_base_model_are_refused() -> None:
    assert wrong(attacks(), at="weights that config.json names") == []
    assert wrong(attacks(), at="base model that is an adapter") == []


@pytest.mark.parametrize("n", lengths(3, None))
def test_code_beside_a_model_runs_only_if_asked_for(n: int | None) -> None:
    assert wrong(remote_attacks(), n) == []
    assert runs_when_asked()


@pytest.mark.hardening
def test_a_followed_name_is_seen() -> None:
    base = "lora_dropout.commands.loading.base_model"
    with mock.patch(f"{base}.check_base"):
        assert wrong(attacks(), at="index of shards")
    with mock.patch(f"{base}.check_code"):
        assert wrong(attacks(), at="weights that config.json names")
    with mock.patch(f"{base}.check_repository"):
        assert wrong(attacks(), at="base model that is an adapter")
    with mock.patch(f"{base}.check_adapter"):
        assert wrong(attacks(), at="adapter_config.json")
    with mock.patch("lora_dropout.commands.loading.trust.check_output"):
        found = wrong(attacks(), at="link where is written")
        assert any("executed" in end for end in found)


def test_pickled_weights_beside_safetensors_do_not_matter() -> None:
    folder = fresh() / "bert"
    shutil.copytree(world.base(), folder)
    index = {"metadata": {}, "weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (folder / "pytorch_model-00001-of-00002.bin").write_bytes(b"")
    status, printed = command(*world.train_options(fresh() / "out", model=folder))
    assert status == 0, printed
