"""What `train` saves is the whole network: another process, with other seeds, computes the same."""

import gc
import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lora_dropout import __main__ as cli
from lora_dropout.commands.loading import base_model as models
from lora_dropout.commands.loading.whole_modules import drawn_modules, linear_layers, whole_modules
from lora_dropout.data import call_model
from lora_dropout.tasks.catalogue import find_task
from tests.lora_dropout.commands.text_families import FAMILIES, save_family
from tests.lora_dropout.tasks.test_squad import squad_file
from tests.lora_dropout.tasks.tiny import bert_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

_RATE = ["--learning-rate", "0.02", "--batch-size", "6", "--epochs", "1", "--instances", "1"]
_RATE += ["--eval-instances", "1", "--inference", "mean", "--no-rescale"]
# Name -> (family, what the files hold, task, further options)
_RUNS: dict[str, tuple[str, str, str, list[str]]] = {
    **{family: (family, "AutoModel", "sst2", []) for family in FAMILIES},
    "bert without a pooler": ("bert", "AutoModelForMaskedLM", "sst2", []),
    "distilbert with a head": ("distilbert", "AutoModelForSequenceClassification", "sst2", []),
    "t5 with a head, its q adapted": (
        *("t5", "AutoModelForSequenceClassification", "sst2"),
        ["--target-modules", "q"],
    ),
    "xlnet with a head of three": (
        *("xlnet", "AutoModelForSequenceClassification of 3", "sst2"), []
    ),
    "deberta, a number": ("deberta", "AutoModel", "stsb", []),
    "deberta, adalora": ("deberta", "AutoModel", "sst2", ["--adapter", "adalora", "--rank", "2"]),
    "deberta, spans": ("deberta", "AutoModel", "squad_v2", []),
    "big_bird, spans": ("big_bird", "AutoModel", "squad_v2", []),
    "modernbert, spans": ("modernbert", "AutoModel", "squad_v2", []),
    "llama, text": ("llama", "AutoModel", "instructions", []),
    "gpt2, text": ("gpt2", "AutoModel", "instructions", []),
}  # fmt: skip


def data_of(task: str, folder: Path) -> Path:
    """Two small labelled splits."""
    place = folder / task
    if place.exists():
        return place
    place.mkdir()
    for split, start in (("train", ""), ("dev", "a very ")):
        words = [f"{start}{w} {x}" for x in ("film", "plot") for w in ("good", "bad", "dull")]
        if task in ("sst2", "stsb"):
            columns = "sentence1\tsentence2\tscore" if task == "stsb" else "sentence\tlabel"
            end = "\tthe cast\t{:.1f}" if task == "stsb" else "\t{:.0f}"
            lines = [f"{text}{end.format(i % 2)}" for i, text in enumerate(words)]
            (place / f"{split}.tsv").write_text("\n".join([columns, *lines]) + "\n")
        elif task == "squad_v2":
            squad_file(place / f"{split}-v2.0.json")
        else:
            records = [{"instruction": text, "output": "the story is nice"} for text in words]
            (place / f"{split}.json").write_text(json.dumps(records))
    return place


def plain_loss(run: Path, data: Path) -> float:
    """The loss of plain PEFT on the dev set, loaded as the model card says."""
    torch.seed()
    record = json.loads((run / "run.json").read_text())
    task = find_task(record["settings"]["task"])
    how = record["plain"]
    base = getattr(transformers, how["class"]).from_pretrained(
        record["settings"]["model"], **how["arguments"]
    )
    model = PeftModel.from_pretrained(base, str(run)).eval()
    tokenizer = AutoTokenizer.from_pretrained(run)
    tokens = task.encode(
        task.load(data)["dev"],
        tokenizer,
        max_length=record["max_length"],
        order=record["classes"] or (),
    )
    batch = task.collator(tokenizer)(list(tokens.rows))
    inputs = {k: v for k, v in batch.items() if k not in ("labels", "start_positions")}
    inputs.pop("end_positions", None)
    with torch.no_grad():
        output = call_model(task.predictor(model, tokenizer), inputs)
    return task.measure(task.reduce(output, batch), tokens, task.load(data)["dev"])["loss"]


def fresh(folder: str) -> None:
    """In a process of its own: the plain losses of all runs in a folder."""
    warnings.simplefilter("ignore")
    found = {}
    for path in sorted(Path(folder).glob("*/run.json")):
        task = json.loads(path.read_text())["settings"]["task"]
        try:
            found[path.parent.name] = plain_loss(path.parent, Path(folder) / "data" / task)
        except Exception as error:
            found[path.parent.name] = repr(error)[:300]
    Path(folder, "plain.json").write_text(json.dumps(found))


def train(name: str, folder: Path) -> None:
    family, held, task, more = _RUNS[name]
    head, _, classes = held.partition(" of ")
    model = folder / f"{family} {held}"
    if not model.exists():
        save_family(family, model, head=head, **({"num_labels": int(classes)} if classes else {}))
    options = ["--model", str(model), "--task", task, "--data", str(data_of(task, folder / "data"))]
    out = ["--output", str(folder / name)]
    assert cli.main(["train", *options, *out, "--keep-overlap", *_RATE, *more]) == 0


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    """Name of a run -> (the loss that `train` measured, that of plain PEFT in another process)."""
    folder = tmp_path_factory.mktemp("families")
    (folder / "data").mkdir()
    measured: dict[str, Any] = {}
    for name in _RUNS:
        try:
            train(name, folder)
            record = json.loads((folder / name / "run.json").read_text())
            measured[name] = record["results"]["dev"]["loss"]
            gc.freeze()  # accelerate collects after each training
        except BaseException as error:  # one family must not hide the others
            measured[name] = repr(error)
    code = f"from {__name__} import fresh; fresh({str(folder)!r})"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    plain = json.loads((folder / "plain.json").read_text())
    return {name: (measured[name], plain.get(name)) for name in _RUNS}


@pytest.mark.parametrize("name", _RUNS)
def test_plain_peft_in_another_process_computes_what_was_measured(
    name: str, losses: dict[str, tuple[Any, Any]]
) -> None:
    measured, plain = losses[name]
    assert isinstance(measured, float) and math.isfinite(measured), measured
    assert plain == pytest.approx(measured, rel=2e-5)


# What is trained whole


def loaded(family: str, folder: Path, head: str = "AutoModel", auto: Any = None) -> tuple[Any, Any]:
    """A model with a head of a task, and the names of what its files lack."""
    auto = auto or AutoModelForSequenceClassification
    model, info = auto.from_pretrained(
        save_family(family, folder, head=head), output_loading_info=True
    )
    return model, drawn_modules(info)


def test_the_flag_takes_the_place_of_the_choice(tmp_path: Path) -> None:
    model, drawn = loaded("deberta", tmp_path)
    assert drawn == ("classifier", "pooler.dense")
    assert whole_modules(model, "classification", drawn) == ("classifier", "pooler")
    wanted = ["pooler.dense", "classifier", "layer.1.output.dense"]
    assert whole_modules(model, "classification", drawn, wanted) == (
        "classifier",
        "deberta.encoder.layer.1.output.dense",
        "pooler.dense",
    )
    with pytest.raises(ValueError, match=r"no weights for pooler.dense.*name it too, got classi"):
        whole_modules(model, "classification", drawn, ["classifier"])
    with pytest.raises(ValueError, match="--modules-to-save: the model has no module 'poler'"):
        whole_modules(model, "classification", drawn, ["poler"])


def test_more_than_a_head_is_not_drawn_without_a_word(tmp_path: Path) -> None:
    """Files that lack a layer, or the words: not whole, or of another architecture."""
    folder = save_family("bert", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    for part in ("encoder.layer.1.output.dense.weight", "embeddings.word_embeddings.weight"):
        kept = {name: t for name, t in tensors.items() if name != part}
        assert len(kept) == len(tensors) - 1
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder, output_loading_info=True
        )
        drawn, lost = drawn_modules(info), f"bert.{part.removesuffix('.weight')}"
        with pytest.raises(ValueError, match=f"hold no weights for {lost}.*are they whole"):
            whole_modules(model, "classification", drawn)
        found = whole_modules(model, "classification", drawn, [lost, "classifier"])
        assert found == (lost, "classifier")


def test_weights_of_another_shape_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_family("bert", tmp_path / "bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 60}))
    options = ["--model", str(folder), "--task", "sst2", "--data", str(data_of("sst2", tmp_path))]
    assert cli.main(["train", *options, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "word_embeddings.weight have shape (46, 16), by its settings (60, 16)" in error


# all-linear


def test_all_linear_is_what_can_be_masked(tmp_path: Path) -> None:
    model, drawn = loaded("mixtral", tmp_path / "mixtral")
    whole = whole_modules(model, "classification", drawn)
    with pytest.warns(UserWarning, match=r"adapts 8 linear layers; .* model.layers.0.mlp.experts"):
        found = linear_layers(model, whole)
    ends = {name.rpartition(".")[2] for name in found}
    assert ends == {"q_proj", "k_proj", "v_proj", "o_proj"} and len(found) == 8
    task = find_task("sst2")
    options: dict[str, Any] = {"adapter": "lora", "rank": 2, "alpha": 1.0}
    with pytest.raises(ValueError, match=r"q_proj w1 w2 w3 names experts, .*all-linear does"):
        models.add_adapter(
            models.Base(model, drawn), task, target_modules=["q_proj", "w1", "w2", "w3"], **options
        )


@pytest.mark.parametrize(
    ("config", "auto", "message"),
    [
        (
            transformers.IBertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1,
                                     num_attention_heads=2, intermediate_size=8),
            AutoModelForSequenceClassification,
            "all-linear finds no torch.nn.Linear in IBertForSequenceClassification",
        ),
        (
            transformers.MambaConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1),
            transformers.AutoModelForCausalLM,
            "all-linear does not suit this model, name layers: .*out_proj",
        ),
    ],
)  # fmt: skip
def test_where_all_linear_does_not_do(config: Any, auto: Any, message: str) -> None:
    task = find_task("sst2" if auto is AutoModelForSequenceClassification else "instructions")
    base = models.Base(auto.from_config(config))
    with pytest.raises(ValueError, match=f"--target-modules: {message}"):
        models.add_adapter(
            base, task, adapter="lora", rank=2, alpha=1.0, target_modules=["all-linear"]
        )


# Using what was saved


def test_an_adapter_without_the_drawn_weights_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an older version saved it; and a base model that was changed since."""
    model, data = save_family("deberta", tmp_path / "deberta"), data_of("sst2", tmp_path)
    run = tmp_path / "run"
    options = ["--model", str(model), "--task", "sst2", "--data", str(data), "--output", str(run)]
    assert cli.main(["train", *options, *_RATE]) == 0
    evaluate = ["evaluate", str(run), "--data", str(data)]
    capsys.readouterr()
    assert cli.main(evaluate) == 0
    assert "lora-dropout:" not in capsys.readouterr().err
    tensors = load_file(run / "adapter_model.safetensors")
    kept = {name: t for name, t in tensors.items() if "pooler" not in name}
    assert len(kept) == len(tensors) - 2
    save_file(kept, run / "adapter_model.safetensors", metadata={"format": "pt"})
    config = json.loads((run / "adapter_config.json").read_text())
    config["modules_to_save"].remove("pooler")
    (run / "adapter_config.json").write_text(json.dumps(config))
    assert cli.main(evaluate) == 0
    assert "hold weights for pooler.dense: they are drawn again" in capsys.readouterr().err
    other = save_family("deberta", tmp_path / "other", vocab_size=len(bert_tokenizer()) + 1)
    assert cli.main([*evaluate, "--base-model", str(other)]) == 2
    assert "is not the base model that the adapter was trained on" in capsys.readouterr().err
