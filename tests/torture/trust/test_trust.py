"""The short version of the attacks on trust, and that each of them can be seen to succeed."""

import io
import json
import pickle
import shutil
from importlib.metadata import PackageNotFoundError
from unittest import mock

import pytest
import torch
import yaml

from lora_dropout.commands.fine_tuning import resume
from tests.torture.trust import (
    attacks,
    audit,
    code,
    licences,
    network,
    paths,
    remote,
    source,
    world,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own


def _passed(row: attacks.Row) -> None:
    assert row.passed, row.note


def test_code_in_files_is_not_executed() -> None:
    _passed(attacks.tried("code", attacks.spread(code.attacks(), 30)))


def test_names_in_files_lead_nowhere() -> None:
    _passed(attacks.tried("paths", attacks.spread(paths.attacks(), 20)))


def test_code_beside_a_model_runs_only_if_asked_for() -> None:
    _passed(attacks.tried("remote", remote.attacks()))
    assert remote.runs_when_asked()


def test_training_on_local_files_reaches_nobody_and_a_hub_name_does() -> None:
    world.trained()
    assert world.reached_in_training() == ()
    assert network.named_hub_model_asks()


def test_the_source_executes_no_file() -> None:
    for row in attacks.static():
        _passed(row)


@pytest.mark.parametrize("name", world.BOMBS)
def test_the_planted_code_is_live(name: str) -> None:
    mark = world.fresh() / "mark"
    content = world.BOMBS[name](mark)
    if name == "pickle":
        pickle.loads(content)
    else:
        torch.load(io.BytesIO(content), weights_only=False)
    assert mark.exists()


def _row(module: object, place: str) -> attacks.Row:
    some = [a for a in module.attacks() if a.place.startswith(place)]  # type: ignore[attr-defined]
    return attacks.tried("some", some)


def test_an_unsafe_reader_is_seen() -> None:
    load = torch.load

    def unsafe(*arguments: object, **options: object) -> object:
        return load(*arguments, **{**options, "weights_only": False})

    with mock.patch("torch.load", unsafe):
        assert "executed" in _row(code, "checkpoint: read").note
        assert "executed" in _row(code, "--resume: rng_state.pth").note
    with mock.patch("yaml.safe_load", yaml.unsafe_load):
        assert "executed" in _row(code, "YAML").note


def test_a_followed_name_is_seen() -> None:
    with mock.patch("lora_dropout.commands.loading.base_model.check_base"):
        assert not _row(paths, "index of shards").passed
    with mock.patch("lora_dropout.commands.loading.base_model.check_code"):
        assert not _row(paths, "weights that config.json names").passed
    with mock.patch("lora_dropout.commands.loading.base_model.check_repository"):
        assert not _row(paths, "base model that is an adapter").passed
    with mock.patch("lora_dropout.commands.loading.base_model.check_adapter"):
        assert not _row(paths, "adapter_config.json").passed
    with mock.patch("lora_dropout.commands.loading.trust.check_output"):
        assert "executed" in _row(paths, "link where is written").note


def test_names_that_lead_out_of_a_base_model_are_refused() -> None:
    _passed(_row(paths, "weights that config.json names"))
    _passed(_row(paths, "base model that is an adapter"))


def test_pickled_weights_beside_safetensors_do_not_matter() -> None:
    folder = world.fresh() / "bert"
    shutil.copytree(world.base(), folder)
    index = {"metadata": {}, "weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (folder / "pytorch_model-00001-of-00002.bin").write_bytes(b"")
    status, printed = world.command(*world.train_options(world.fresh() / "out", model=folder))
    assert status == 0, printed


@pytest.mark.parametrize(
    "name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
)
def test_a_damaged_checkpoint_is_refused_by_the_name_of_the_file(name: str) -> None:
    folder = world.stopped()
    (path,) = folder.glob(f"checkpoint-*/{name}")
    whole = path.read_bytes()
    damaged = [whole[: len(whole) // 2], b""]
    if path.suffix != ".json":
        damaged.append(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])  # in the first part
    for content in damaged:
        path.write_bytes(content)
        status, printed = world.command(*world.train_options(folder, "--resume", "--epochs", 2))
        assert status == 2 and f"{name} is damaged" in printed, printed


@pytest.mark.parametrize("how", ["is_fsdp_enabled", "is_deepspeed_enabled"])
def test_checkpoints_that_are_pickles_are_refused(how: str) -> None:
    trainer = mock.Mock(**{"is_fsdp_enabled": False, "is_deepspeed_enabled": False, how: True})
    with pytest.raises(ValueError, match="--resume: checkpoints of FSDP and DeepSpeed are pickles"):
        resume(trainer, "checkpoint-1")
    trainer.train.assert_not_called()
    resume(trainer, None)
    trainer.train.assert_called_once()


def test_a_connection_is_seen_also_of_a_child() -> None:
    connect = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {connect!r}])"
    _, _, seen = network.reached(["-c", child], log=world.fresh() / "log")
    assert "192.0.2.1" in seen
    local = "import socket; s = socket.create_server(('127.0.0.1', 0)); "
    local += "socket.create_connection(s.getsockname())"
    assert network.reached(["-c", local], log=world.fresh() / "log")[::2] == (0, "")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("import pickle\npickle.load(f)", "pickle.load"),
        ("from pickle import loads as l\nl(x)", "pickle.loads"),
        ("import torch as t\nt.load(f)", "torch.load"),
        ("import torch\ntorch.load(f, weights_only=False)", "torch.load"),
        ("import numpy as np\nnp.load(f, allow_pickle=True)", "allow_pickle"),
        ("import yaml\nyaml.load(f, yaml.Loader)", "yaml.load"),
        ("eval(x)", "eval"),
        ("import subprocess\nsubprocess.run(x, shell=True)", "shell=True"),
        ("from os import system\nsystem(x)", "os.system"),
    ],
)
def test_a_dangerous_call_is_seen(text: str, what: str) -> None:
    assert any(what in call for call in source.dangerous_calls(text))


@pytest.mark.parametrize(
    "text",
    [
        "import torch\ntorch.load(f, weights_only=True)",
        "import numpy as np\nnp.load(f)",
        "model.eval()",
        "import yaml\nyaml.safe_load(f)",
    ],
)
def test_a_safe_call_is_none(text: str) -> None:
    assert source.dangerous_calls(text) == []


def test_licences() -> None:
    for row in attacks.dependencies():
        _passed(row)
    packages = [licences.Package("a", "1", text) for text in ("GPL-3.0-only", "LGPL-3.0", "MIT")]
    assert [p.copyleft for p in packages] == ["strong", "weak", ""]
    assert licences.Package("a", "1", "GNU Affero General Public License").copyleft == "strong"
    listed = {line.split(" | ")[0].removeprefix("| ") for line in
              licences.KEPT.read_text().splitlines()[2:]}  # fmt: skip
    assert listed == {*licences.pinned()}, "run make audit"


def test_an_unknown_licence_is_seen() -> None:
    with pytest.raises(PackageNotFoundError):
        licences.licence_of("no-such-package")
    with mock.patch("tests.torture.trust.licences.metadata") as metadata:
        metadata.return_value.get.return_value = None
        metadata.return_value.get_all.return_value = ["License :: OSI Approved"]
        assert licences.licence_of("x") == licences.UNKNOWN


def test_an_audit_that_looked_nothing_up_does_not_pass() -> None:
    good = {"name": "a", "version": "1", "vulns": []}
    skipped = {"name": "b", "skip_reason": "not found on PyPI"}
    bad = {"name": "c", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
    assert audit.read({"dependencies": [good]}).passed
    assert not audit.read({"dependencies": []}).passed
    assert not audit.read({"dependencies": [good, skipped]}).passed
    found = audit.read({"dependencies": [good, bad]})
    assert not found.passed and found.vulnerable == ["c 2: PYSEC-1, fixed in 3"]
