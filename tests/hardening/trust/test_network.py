"""Other machines: nothing that names only local things may try to reach one."""

import ipaddress
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest

from tests.hardening import ROOT
from tests.hardening.trust import world
from tests.hardening.trust.world import command, fresh
from tests.lora_dropout.tasks.tiny import save_tiny_gpt2

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own
# Ray 2.60 opens a socket towards the first, to learn its own address, and sends nothing; its server
# asks the second, a cloud's own address for its machines, what cloud this is (and looks up the name
# of Google's), and with `ray.init` reports it to nobody.
RAYS_OWN = {"8.8.8.8", "169.254.169.254"}

_IMPORTS = """
import importlib, pkgutil
for package in ("lora_bounds", "lora_dropout", "paper_figures"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""
_DIGITS = """
import sys, torch
import lora_dropout as ld
from lora_dropout.tasks.digits import digits_target, pretrain_digits
model, task = pretrain_digits(epochs=1), digits_target(seed=0)
ld.adapt(model, ld.LoRADropoutConfig(rank=2, target_modules=r"blocks\\..*"))
ld.fit(model, task.train, config=ld.FitConfig(epochs=1), checkpoint_folder=sys.argv[1])
ld.ensemble_predict(model, task.test[0], n_instances=2)
ld.save_adapter(model, sys.argv[1])
ld.load_adapter(pretrain_digits(epochs=1), sys.argv[1])
"""
_TRAINER = """
import sys
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, TrainingArguments
from lora_dropout.peft import LoRADropoutTrainer, attach
base = AutoModelForSequenceClassification.from_pretrained(sys.argv[1])
model = attach(get_peft_model(base, LoraConfig(r=2, task_type="SEQ_CLS")), dropout=0.5)
rows = Dataset.from_dict({"input_ids": [[2, 5, 3]] * 4, "labels": [0, 1, 0, 1]})
args = TrainingArguments(sys.argv[2], max_steps=1, report_to="none", use_cpu=True)
trainer = LoRADropoutTrainer(model, args, train_dataset=rows, eval_dataset=rows)
trainer.train()
trainer.evaluate()
trainer.save_model(sys.argv[2])
model.save_pretrained(sys.argv[2])
"""


def _compare() -> list[object]:
    options = [o if o != "train" else "compare" for o in world.train_options(fresh() / "out")]
    few = ["--seeds", 2, "--n-validation", 8, "--learning-rates", 0.01, "--jobs", 2]
    return ["-m", "lora_dropout.__main__", *options, *few]


def _causal(action: str) -> list[object]:
    model, data, output = save_tiny_gpt2(fresh() / "gpt2"), fresh() / "alpaca.json", fresh() / "o"
    data.write_text('[{"instruction": "a", "output": "b"}, {"instruction": "c", "output": "d"}]')
    options = ["--model", model, "--task", "instructions", "--data", data, "--output", output]
    return ["-m", "lora_dropout.__main__", action, *options, "--epochs", 1, "--eval-instances", 1]


def programs() -> dict[str, list[object]]:
    """Arguments of Python for all that uses only local things."""
    cli, run = ["-m", "lora_dropout.__main__"], world.trained()
    answers = fresh() / "answers"
    return {
        "import of every module": ["-c", _IMPORTS],
        "lora-bounds verify": ["-m", "lora_bounds.__main__", "verify"],
        "lora-bounds show": ["-m", "lora_bounds.__main__", "show", "Prop 4.2"],
        "lora-bounds bound": ["-m", "lora_bounds.__main__", "bound", "--n", 100, "--dropout", 0.5,
                              "--lipschitz", 0.5, "--regularization", 10],
        "digits: pretrain, fit, predict, save, load": ["-c", _DIGITS, fresh()],
        "a Trainer of one's own on a PEFT model": ["-c", _TRAINER, world.base(), fresh()],
        "train --dry-run": [*cli, *world.train_options(fresh() / "o", "--dry-run")],
        "train": [*cli, *world.train_options(fresh() / "o")],
        "train adalora": [*cli, *world.train_options(fresh() / "o", "--adapter", "adalora")],
        "train --resume": [*cli, *world.train_options(world.stopped(), "--resume", "--epochs", 2)],
        "train --replay": [*cli, "train", "--replay", run],
        "train instructions on GPT-2": _causal("train"),
        "evaluate": [*cli, "evaluate", run, "--data", world.data()],
        "predict": [*cli, "predict", run, "--input", world.data() / "dev.tsv",
                    "--output", answers],
        "compare, two processes": _compare(),
        "figures: list": ["-m", "paper_figures", "list"],
        "figures: run": ["-m", "paper_figures", "run", "fig2_scheme", "--out", fresh()],
    }  # fmt: skip


def reached(arguments: list[Any], *, log: Path) -> tuple[int, str, str]:
    """Run Python, and its Python children, where other machines are out of reach.

    Returns:
        (exit status, the end of what it printed, what it tried to reach, which the log holds).
    """
    paths = os.pathsep.join((str(world.NO_NETWORK), str(ROOT)))
    unset = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
    environment = {k: v for k, v in os.environ.items() if k not in unset}
    environment |= {"PYTHONPATH": paths, "NO_NETWORK_LOG": str(log), "HF_HOME": str(fresh())}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=fresh(),
        env=environment,
        capture_output=True,
        text=True,
    )
    text = log.read_text() if log.exists() else ""
    return done.returncode, (done.stderr or done.stdout)[-300:], text


def named_hub_model_asks() -> bool:
    """Whether a name that is no folder makes `train` ask the hub, and end with a clear error."""
    online = mock.patch("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # whatever is set here
    with world.forbidden() as seen, online, mock.patch("time.sleep"):  # between the hub's retries
        status, printed = command(
            *world.train_options(fresh() / "o", model="someone/no-such-model")
        )
    return status == 2 and "--model" in printed and any("huggingface.co" in line for line in seen)


def ray_hosts() -> set[str]:
    """Hosts besides this one that a sweep on a Ray cluster of its own connects to."""
    log = fresh() / "strace"
    program = (
        "import sys\nfrom lora_dropout.runs.store import Store, run_cells\n"
        "run_cells(dict, [{'a': 1}, {'a': 2}], store=Store(sys.argv[1]), jobs=2, engine='ray')"
    )
    subprocess.run(
        ["strace", "-f", "-qq", "-s", "200", "-e", "trace=connect,sendto,sendmsg,sendmmsg",
         "-o", log, sys.executable, "-c", program, fresh()],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    text = log.read_text()
    found = set(re.findall(r'inet_addr\("([^"]+)"\)', text))
    found |= set(re.findall(r'inet_pton\(AF_INET6, "(?:::ffff:)?([^"]+)"', text))
    own = {a.address.split("%")[0] for each in psutil.net_if_addrs().values() for a in each}
    others = {a for a in found - own if not ipaddress.ip_address(a).is_loopback and a != "::"}
    return others | {"usage-stats.ray.io"} if "usage-stats" in text else others


def nameservers() -> set[str]:
    """Where this machine looks names up."""
    try:
        text = Path("/etc/resolv.conf").read_text()
    except OSError:
        return set()
    return set(re.findall(r"^nameserver\s+(\S+)", text, re.MULTILINE))


@pytest.mark.hardening
def test_programs_that_name_only_local_things_reach_nobody() -> None:
    for name, arguments in programs().items():
        status, printed, seen = reached(arguments, log=fresh() / "log")
        assert (status, seen) == (0, ""), f"{name}: {seen[:200] or printed}"


def test_training_on_local_files_reaches_nobody_and_a_hub_name_does() -> None:
    world.trained()
    assert world.reached_in_training() == ()
    assert named_hub_model_asks()


@pytest.mark.hardening
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace sees what Ray's programs do")
def test_a_ray_cluster_of_ones_own_reaches_no_other_host() -> None:
    assert ray_hosts() - RAYS_OWN - nameservers() == set()


def test_a_connection_is_seen_also_of_a_child() -> None:
    connect = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {connect!r}])"
    _, _, seen = reached(["-c", child], log=fresh() / "log")
    assert "192.0.2.1" in seen
    local = "import socket; s = socket.create_server(('127.0.0.1', 0)); "
    local += "socket.create_connection(s.getsockname())"
    assert reached(["-c", local], log=fresh() / "log")[::2] == (0, "")
