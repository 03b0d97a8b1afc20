"""A record and its repetition: what counts as a difference, what is damaged."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_dropout.runs.differences import differences, read_result, recorded_threads, report
from lora_dropout.training.checkpoint import tensors_digest

RECORD: dict[str, Any] = {
    "settings": {"output": "here"},
    "results": {"dev": {"loss": 0.5, "seconds": 1.0}, "test": {"loss": 0.0}},
    "history": [1.0, 2],
    "verdict": "reproduced",
    "provenance": {"commit": "a", "versions": {"torch": "2"}},
}


def changed(way: str, value: Any) -> dict[str, Any]:
    found = json.loads(json.dumps(RECORD))
    *keys, last = way.split("/")
    inner = found
    for key in keys:
        inner = inner[key]
    inner[last] = value
    return found


@pytest.mark.parametrize(
    ("way", "value", "shown"),
    [
        (
            "results/dev/loss",
            0.5000000000000001,
            "results.dev.loss: 0.5 -> 0.5000000000000001 (relative difference 2.2e-16)",
        ),
        ("results/test/loss", -0.0, "results.test.loss: 0.0 -> -0.0 (relative difference 0)"),
        ("results/test/loss", 1.0, "results.test.loss: 0.0 -> 1.0 (relative difference 1)"),
        ("results/dev/loss", None, "results.dev.loss: 0.5 -> None"),
        ("results/dev/loss", 10**400, "results.dev.loss: 0.5 -> 1000"),
        ("history", [1.0], "history: length: 2 -> 1"),
        ("history", [1.0, 2.0], "history[1]: 2 -> 2.0"),
        ("verdict", "weakened", "verdict: 'reproduced' -> 'weakened'"),
        ("results", {}, "results.dev.loss: 0.5 -> None"),
    ],
)
def test_every_bit_counts(
    way: str, value: Any, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(Path("run.json"), RECORD, changed(way, value)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(shown)
    assert lines[-1].startswith("differs: ")


@pytest.mark.parametrize(
    ("way", "value", "shown"),
    [
        ("results/dev/seconds", 2.0, ""),
        ("settings/output", "there", ""),
        ("digest", "0", ""),
        ("local_model", True, ""),
        ("more", 1, "not in the record: more"),
        ("provenance/commit", "b", "provenance, commit: 'a' -> 'b'"),
        ("provenance/threads", 2, "provenance, threads: not recorded -> 2"),
        ("provenance/command", "python", ""),
    ],
)
def test_what_does_not_count_is_told(
    way: str, value: Any, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(Path("run.json"), RECORD, changed(way, value)) == 0
    *others, last = capsys.readouterr().out.splitlines()
    assert "\n".join(others) == shown
    assert last == "identical: 6 values of run.json repeated to the last bit"


def test_many_differences_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    before, after = ({**RECORD, "history": [start + k for k in range(50)]} for start in (1, 2))
    assert len(differences(before, after)) == 50
    assert report(Path("r"), before, after) == 1
    out = capsys.readouterr().out
    assert "... and 30 more" in out
    assert "50 of 54 values of r: 50 numbers, by a relative 0.5 at most, and 0 others" in out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*run.json: No such file"),
        ("{", "run.json is damaged"),
        ("[" * 10_000, "run.json is damaged"),
        ("[1]", "run.json is no result"),
        ('{"settings": {}}', "run.json cannot be repeated without its provenance, got None"),
        ('{"provenance": {}, "settings": 3}', "without its settings, got 3"),
        ('{"provenance": {"threads": "2"}, "settings": {}}', "threads must be a count, got '2'"),
    ],
)
def test_what_cannot_be_repeated_is_refused(
    content: str | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_result(path, "settings")


def test_the_threads_are_the_record_s() -> None:
    before = torch.get_num_threads()
    with recorded_threads({"provenance": {"threads": before + 1}}):
        assert torch.get_num_threads() == before + 1
    with recorded_threads({"provenance": {}}):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before


def test_a_digest_of_weights_sees_every_bit_and_no_order() -> None:
    one, other = torch.zeros(3), torch.ones(2, dtype=torch.bfloat16)
    digest = tensors_digest({"a": one, "b": other})
    assert digest == tensors_digest({"b": other, "a": one})
    others: list[dict[str, torch.Tensor]] = [
        {"a": -one, "b": other},
        {"b": one, "a": other},
        {"a": one, "b": other.float()},
        {"a": one[:, None], "b": other},
        {"a": one},
    ]
    assert digest not in map(tensors_digest, others)
