"""Every reader of files under mutated files: a result, or an error that names the file.

Nothing may be executed, no file outside the folder be opened, nothing hang or use up the stack.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import yaml
from hypothesis import strategies as st

import lora_bounds
import lora_dropout as ld
from lora_bounds import counterexamples, measurements
from lora_dropout.adapters import folder as adapter_io
from lora_dropout.commands import options, replaying
from lora_dropout.commands.settings import TrainSettings
from lora_dropout.commands.train import saved_run
from lora_dropout.runs.store import Store
from lora_dropout.tasks.glue import GLUE
from lora_dropout.tasks.instructions import InstructionTask
from lora_dropout.tasks.mmlu import MmluTask
from lora_dropout.tasks.squad import SQUAD
from lora_dropout.training import checkpoint
from paper_figures.press import redraw as figure_replay
from paper_figures.press.figure import Training
from tests.hardening.inputs.attack import Case, RefusedError, attack
from tests.hardening.inputs.dropout_arguments import model, net
from tests.hardening.lengths import lengths
from tests.hardening.packaged import from_package

Kind = Literal["json", "text", "bytes"]
_DEEP = 100_000
_LONGEST = 4000  # of a message: it may list what does not fit, line by line

_PIECES = [
    b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\r\n", b"\r", b"\xef\xbb\xbf", b"\t", b'"', b"'", b",",
    b"[" * _DEEP, b'{"a":' * _DEEP, b"[" * 500 + b"]" * 500, b"9" * 5000, b"1e999", b"-1e999",
    b"NaN", b"Infinity", b"null", b"true", b"../../../../etc/passwd", b"/etc/passwd", b"\\ud800",
    b"!!python/object/apply:os.system ['true']", b"&a *a", b"cos\nsystem\n(S'true'\ntR.",
    b"\x80\x04",
    b"PK\x03\x04", b"\xff" * 8, b"x" * 10_000, b"\n" * 50, b"-1", b"0",
    b"\xe2\x80\xa8", b"{}", b"[]",
]  # fmt: skip
_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 1.5, 1e308, float("nan"), float("inf"), 10**400, -(10**30), "",
    "x", "../../x", "/etc/passwd", "\x00", "\ud800", "9" * 5000, [], {}, [None], [[]], {"a": 1},
    [1, "a"], "all-linear", "(", ["*"], 2**63, 10**9, "1", "__class__", [0.5] * 3, {"": None},
    ["x"] * 500,
]  # fmt: skip


def mutated(content: bytes, kind: Kind) -> st.SearchStrategy[bytes]:
    """A valid file with chunks cut, doubled, moved or put in; a value replaced; or other bytes."""
    place = st.integers(0, len(content))

    def chunk(ends: tuple[int, int, int, str]) -> bytes:
        low, high, to = *sorted(ends[:2]), ends[2]
        piece = content[low:high]
        if ends[3] == "cut":
            return content[:low] + content[high:]
        if ends[3] == "double":
            return content[:high] + piece + content[high:]
        rest = content[:low] + content[high:]
        return rest[:to] + piece + rest[to:]

    chunks = st.tuples(place, place, place, st.sampled_from(["cut", "double", "move"])).map(chunk)
    inserted = st.tuples(place, place, st.sampled_from(_PIECES)).map(
        lambda drawn: content[: drawn[0]] + drawn[2] + content[drawn[0] + drawn[1] % 3 :]
    )
    flipped = st.tuples(place, st.integers(1, 255)).map(
        lambda drawn: bytes(
            byte ^ drawn[1] if i == drawn[0] else byte for i, byte in enumerate(content)
        )
    )
    ends = st.sampled_from([content.replace(b"\n", b"\r\n"), b"", content[:-1], b"\n" + content])
    ways = [chunks, inserted, inserted, flipped, ends, st.binary(max_size=60)]
    if kind == "json":
        ways += [replaced(json.loads(content))] * 4
    return st.one_of(ways)


def replaced(content: Any) -> st.SearchStrategy[bytes]:
    """A JSON document of which one value is another, is gone, or has another name."""
    places = [*_places(content)]

    def change(drawn: tuple[int, Any, str]) -> bytes:
        document = json.loads(json.dumps(content))
        *way, last = places[drawn[0]]
        inner = document
        for key in way:
            inner = inner[key]
        if drawn[2] == "drop":
            del inner[last]
        elif drawn[2] == "rename" and isinstance(inner, dict):
            inner[f"{last}_"] = inner.pop(last)
        else:
            inner[last] = drawn[1]
        return json.dumps(document).encode("utf-8", "surrogatepass")

    which = st.integers(0, len(places) - 1)
    how = st.sampled_from(["value", "value", "value", "drop", "rename"])
    return st.tuples(which, st.sampled_from(_VALUES), how).map(change)


def _places(content: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in inner:
        yield (*way, key)
        if isinstance(value, dict | list):
            yield from _places(value, (*way, key))


_SEEN: list[str] | None = None
_RUNS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect")


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _SEEN is None:
        return
    if event in _RUNS:
        _SEEN.append(event)
    elif event == "open" and isinstance(arguments[0], str | bytes):
        name = arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0]
        _SEEN.append(str(Path(name).absolute()))


sys.addaudithook(_hook)


@contextlib.contextmanager
def _watched(folder: Path) -> Iterator[None]:
    """Assert that nothing outside the folder (but code) is opened, and nothing is run."""
    global _SEEN
    code = [str(Path(lora_bounds.__file__).parents[1]), sys.prefix, sys.base_prefix]
    allowed = [str(folder), *code, "/proc/", "/dev/", "/sys/"]
    _SEEN = []
    try:
        yield
    finally:
        seen, _SEEN = _SEEN, None
    odd = [name for name in seen if not any(name.startswith(place) for place in allowed)]
    assert not odd, f"reached outside: {odd[:3]}"


@dataclasses.dataclass(frozen=True)
class Reader:
    """One kind of file: how to mutate it, who makes its folder, its name, who reads the folder."""

    kind: Kind
    folder: Callable[[Path], None]
    file: str
    read: Callable[[Path], Any]

    def case(self, home: Path) -> Case:
        """The attack, in an empty folder."""
        self.folder(home)
        path = home / self.file
        content = path.read_bytes()
        before = sorted(home.rglob("*"))

        def call(content: bytes) -> Any:
            path.write_bytes(content)
            try:
                with _watched(home), warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of rows left out, and the libraries' own
                    return self.read(home)
            except (ValueError, TypeError, OSError) as error:
                message = str(error)
                assert path.name in message or str(home) in message, (
                    f"{type(error).__name__} names no file: {message[:200]}"
                )
                assert len(message) <= _LONGEST, f"{len(message)} characters: {message[:200]}"
                raise RefusedError from error

        def clean(arguments: dict[str, Any], result: Any) -> None:
            assert sorted(home.rglob("*")) == before, "other files than before"

        valid = st.fixed_dictionaries({"content": st.just(content)})
        return Case(
            self.file, call, valid, clean, wild=mutated(content, self.kind),
            bend=lambda value: None,
        )  # fmt: skip


def _adapter(folder: Path) -> None:
    ld.save_adapter(model(), folder)


def _peft_adapter(folder: Path) -> None:
    _adapter(folder)
    (folder / adapter_io.OWN_CONFIG).unlink()


def _load_adapter(folder: Path) -> Any:
    return ld.load_adapter(net(), folder)


def _checkpoint(folder: Path) -> None:
    state = {"settings": {"a": 1}, "step": 3, "weights": {"w": torch.ones(2)}}
    checkpoint.save_checkpoint(folder, state)
    # Its digest aside, which refuses nearly all: it is put back by the reader below.
    path = folder / checkpoint.NAME
    path.write_bytes(path.read_bytes()[checkpoint._DIGEST_BYTES :])


def _load_checkpoint(folder: Path) -> Any:
    path = folder / checkpoint.NAME
    content = path.read_bytes()
    path.write_bytes(bytes.fromhex(checkpoint.bytes_digest(content)) + content)
    return checkpoint.load_checkpoint(folder, settings={"a": 1})


def _file(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content)  # type: ignore[return-value]


def _json(name: str, content: Any) -> Callable[[Path], None]:
    return _file(name, json.dumps(content))


_CELL = {"rate": 0.5}


def _stored(folder: Path) -> None:
    Store(folder).put(_CELL, {"loss": [0.5, 1]})


def _packaged(package: Any, name: str, folder: Path) -> None:
    place = resources.files(package) / "data" / f"{name}.json"
    (folder / "data").mkdir()
    (folder / "data" / f"{name}.json").write_text(place.read_text())


_SETTINGS = {"task": "sst2", "rank": 4, "dropout": 0.5, "target-modules": ["q", "v"], "model": "m"}
_RUN = {"settings": {"model": "m", "task": "sst2", "dropout": 0.5, "mask": "rank", "rescale": True}}
_ALPACA = [
    {"instruction": "add", "input": "1 2", "output": "3"}, {"instruction": "x", "output": "y"}
]  # fmt: skip
_QUESTION = {"id": "1", "question": "who ?", "answers": [{"text": "he", "answer_start": 0}]}
_SQUAD = {"data": [{"paragraphs": [{"context": "he was born", "qas": [_QUESTION]}]}]}
_MEASUREMENT, _COUNTEREXAMPLE = measurements.ids()[0], counterexamples.ids()[0]


_RESULT = {**_RUN, "provenance": {"command": "c", "commit": None, "threads": 2}}
_FIGURE = {"profile": "quick", "training": Training()._asdict(), "provenance": {"threads": 1}}


def _replayed(folder: Path) -> Any:
    path, content = replaying.read_recorded(folder, "run.json")
    arguments = argparse.Namespace(config=None)
    return replaying.recorded_settings(
        TrainSettings, arguments, path, content, allowed=("data",), output=folder
    )


def _figure(folder: Path) -> None:
    _json("f.json", _FIGURE)(folder)
    (folder / "f.csv").write_text("method,loss\nLoRA,0.5\n")


def _replayed_figure(folder: Path) -> Any:
    content = figure_replay._read(folder / "f.json")
    return content["rows"], figure_replay._training(folder / "f.json", content["training"])


_TASK = InstructionTask()
_MRPC = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t2\t3\ta b\tc\n0\t4\t5\td\te\n"
READERS: dict[str, Reader] = {
    "adapter: own settings": Reader("json", _adapter, adapter_io.OWN_CONFIG, _load_adapter),
    "adapter: PEFT's settings": Reader("json", _peft_adapter, adapter_io.PEFT_CONFIG, _load_adapter
    ),
    "adapter: weights": Reader("bytes", _adapter, adapter_io.WEIGHTS, _load_adapter),
    "checkpoint, its digest right": Reader("bytes", _checkpoint, checkpoint.NAME,
           _load_checkpoint),
    "store": Reader("json", _stored, Store(Path("x")).path(_CELL).name,
           lambda folder: Store(folder).get(_CELL)),
    "YAML settings": Reader("text", _file("c.yaml", yaml.safe_dump(_SETTINGS)), "c.yaml",
           lambda folder: options._read_file(TrainSettings, folder / "c.yaml")),
    "run.json": Reader("json", _json("run.json", _RUN), "run.json", saved_run),
    "run.json to replay": Reader("json", _json("run.json", _RESULT), "run.json", _replayed),
    "figure's JSON to replay": Reader("json", _figure, "f.json", _replayed_figure),
    "figure's CSV to replay": Reader("text", _figure, "f.csv", _replayed_figure),
    "TSV of MRPC": Reader("text", _file("dev.tsv", _MRPC), "dev.tsv",
           lambda folder: GLUE["mrpc"].load(folder)),
    "TSV of CoLA": Reader("text", _file("dev.tsv", "s\t1\t\tone\ns\t0\t*\ttwo\n"), "dev.tsv",
           lambda folder: GLUE["cola"].load(folder)),
    "TSV of STS-B": Reader("text",
           _file("dev.tsv", "sentence1\tsentence2\tscore\na\tb\t2.5\nc\td\t0\n"), "dev.tsv",
           lambda folder: GLUE["stsb"].load(folder)),
    "instructions JSON": Reader("json", _json("train.json", _ALPACA), "train.json", _TASK.load),
    "SQuAD JSON": Reader("json", _json("dev-v1.1.json", _SQUAD), "dev-v1.1.json",
           lambda folder: SQUAD["squad"].load(folder)),
    "MMLU CSV": Reader("text", _file("x_test.csv", 'q,"a, b",c,d,e,B\nr,a,b,c,d,A\n'),
           "x_test.csv", lambda folder: MmluTask().read(folder / "x_test.csv")),
    "measurement JSON": Reader("json",
           lambda folder: _packaged("lora_bounds.measurements", _MEASUREMENT, folder),
           f"data/{_MEASUREMENT}.json",
           from_package(measurements, lambda: measurements.load(_MEASUREMENT))),
    "counterexample JSON": Reader("json",
           lambda folder: _packaged("lora_bounds.counterexamples", _COUNTEREXAMPLE, folder),
           f"data/{_COUNTEREXAMPLE}.json",
           from_package(counterexamples, lambda: counterexamples.load(_COUNTEREXAMPLE))),
}  # fmt: skip


@pytest.mark.parametrize("examples", lengths(8, 1500))
@pytest.mark.parametrize("name", READERS)
def test_mutated_files(name: str, examples: int, tmp_path: Path) -> None:
    attack(READERS[name].case(tmp_path), examples).check()


def test_a_reader_that_opens_another_file_is_seen(tmp_path: Path) -> None:
    reader = Reader(
        "text", _file("a.txt", "b"), "a.txt", lambda _: Path("/etc/hostname").read_text()
    )
    with pytest.raises(AssertionError, match="reached outside"):
        attack(reader.case(tmp_path), 2).check()


def test_a_message_without_the_file_is_seen(tmp_path: Path) -> None:
    reader = Reader("text", _file("a.txt", "b"), "a.txt", lambda _: int("damaged"))
    with pytest.raises(AssertionError, match="names no file"):
        attack(reader.case(tmp_path), 2).check()
