"""Readers whose parser stumbles name the file (the long attack is in `tests/hardening`)."""

import json

import pytest
import torch

from lora_dropout import load_adapter
from lora_dropout.commands.options import _read_file
from lora_dropout.commands.settings import TrainSettings
from lora_dropout.commands.train import saved_run
from lora_dropout.tasks.instructions import InstructionTask
from lora_dropout.tasks.mmlu import MmluTask
from lora_dropout.tasks.squad import SQUAD
from lora_dropout.training import checkpoint

DEEP = '{"a":' * 100_000


@pytest.mark.parametrize("text", [DEEP, "[", '{"alpha": 1}', '{"target_modules": "("}'])
def test_adapter_settings(text, tmp_path):
    (tmp_path / "lora_dropout_config.json").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=str(tmp_path)):
        load_adapter(torch.nn.Sequential(torch.nn.Linear(2, 2)), tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04.", b"cos\nsystem\n."])
def test_checkpoint_with_a_right_digest(content, tmp_path):
    digest = bytes.fromhex(checkpoint.bytes_digest(content))
    (tmp_path / checkpoint.NAME).write_bytes(digest + content)
    with pytest.raises(ValueError, match="is damaged, remove it to start afresh"):
        checkpoint.load_checkpoint(tmp_path, settings={})


@pytest.mark.parametrize(
    "text", ["a: [", "a: !!bool x", "[" * 3000, "rank: 2024-99-99", "rank: !!int ''", "rank: x"]
)
def test_settings(text, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"--config: {path}"):
        _read_file(TrainSettings, path)


def test_a_run(tmp_path):
    (tmp_path / "run.json").write_text(DEEP)
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        saved_run(tmp_path)


def test_tasks(tmp_path):
    path = tmp_path / "x"
    path.write_text(json.dumps([{"instruction": "\ud800", "output": "y"}]))
    with pytest.raises(ValueError, match=f"{path} holds what no column can"):
        InstructionTask().read(path)
    path.write_bytes(b'q,"\xff",b,c,d,A\n')
    with pytest.raises(ValueError, match=f"{path} is no CSV in UTF-8"):
        MmluTask().read(path)
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": "c", "qas": [[1]]}]}]}))
    with pytest.raises(ValueError, match=f"{path} is not in SQuAD's format"):
        SQUAD["squad"].read(path)
