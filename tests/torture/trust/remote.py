"""Code beside a model: it runs where the user says `--trust-remote-code`, and by no file."""

import json
from pathlib import Path

from tests.torture.trust import world
from tests.torture.trust.code import Attack
from tests.torture.trust.world import command, edit, fresh, trained

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


def attacks() -> list[Attack]:
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
