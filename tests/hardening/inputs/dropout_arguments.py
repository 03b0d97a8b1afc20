"""Valid calls of all public functions of `lora_dropout`, read off the names in their signatures."""

import importlib
import inspect
import itertools
import pkgutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F

import lora_dropout as ld
from lora_dropout.peft import attach
from lora_dropout.probes.adapter_objective import AdapterObjective
from lora_dropout.probes.example_losses import ClippedCrossEntropy
from lora_dropout.runs.store import Store
from lora_dropout.tasks.catalogue import TASK_NAMES
from tests.hardening.inputs.attack import Case, finite, no_nan
from tests.hardening.inputs.wild import anything_of_torch

SEED, RATE, COUNT = st.integers(0, 9), st.floats(0.0, 1.0), st.integers(1, 4)
_FOLDER = tempfile.TemporaryDirectory(prefix="hardening-")
_NUMBER = itertools.count()


def folder() -> Path:
    """A folder that no other example has."""
    return Path(_FOLDER.name) / str(next(_NUMBER))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def net() -> nn.Module:
    """A base of 4 features and 3 classes."""
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))


def model(law: Any = "row_column", dropout: float = 0.5, adapter: Any = "lora") -> nn.Module:
    """That base, adapted, its factors drawn."""
    config = ld.LoRADropoutConfig(rank=2, mask=law, dropout=dropout, adapter=adapter)
    made = ld.adapt(net(), config, generator=generator())
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(1)) * 0.5)
    return made


def saved() -> Path:
    target = folder()
    ld.save_adapter(model(), target)
    return target


def one_layer() -> nn.Module:
    return ld.adapt(nn.Sequential(nn.Linear(4, 3)), ld.LoRADropoutConfig(rank=2))


def peft_model() -> nn.Module:
    config = LoraConfig(r=2, target_modules=["0"])
    return get_peft_model(nn.Sequential(nn.Linear(4, 3)), config)  # type: ignore[arg-type]


def objective(seed: int = 0) -> AdapterObjective:
    inputs = torch.randn(4, 4, generator=generator(seed))
    return AdapterObjective(model(), (inputs, torch.tensor([0, 1, 2, 0])), weight=0.1)


def _samples(low: float, high: float) -> st.SearchStrategy[Any]:
    return SEED.map(lambda seed: np.random.default_rng(seed).uniform(low, high, 5))


LAW = st.sampled_from(ld.LAWS)
MODEL = st.builds(model, law=LAW, dropout=st.sampled_from([0.0, 0.3, 0.9]))
FIXED = st.builds(model, law=st.sampled_from(["row_column", "rank", "none"]))
ADALORA = st.builds(model, adapter=st.just("adalora"))
INPUTS = SEED.map(lambda seed: torch.randn(5, 4, generator=generator(seed)))
TARGETS = SEED.map(lambda seed: torch.randint(3, (5,), generator=generator(seed)))
DATA = st.tuples(INPUTS, TARGETS)
POINT = SEED.map(lambda seed: objective(seed).point() + 0.01 * seed)
MASK_FREE, NO = st.sampled_from(["mean", "raw"]), st.none()
INFERENCE = st.sampled_from(["ensemble", "mean", "raw"])
BUDGET = st.builds(ld.RankBudget, target_rank=st.just(1))
CONFIG = st.builds(
    ld.LoRADropoutConfig, rank=st.integers(1, 2), dropout=RATE, mask=LAW, rescale=st.booleans()
)
ONCE = st.just(ld.FitConfig(epochs=1, n_instances=1, batch_size=5))
# What an argument of this name may be, in any function.
ARGUMENTS: dict[str, st.SearchStrategy[Any]] = {
    "model": FIXED, "inputs": INPUTS, "targets": TARGETS, "train": DATA, "held_out": DATA,
    "data": DATA, "spares": DATA, "generator": SEED.map(generator), "config": ONCE, "seed": SEED,
    "n_instances": COUNT, "loss_fn": st.just(F.cross_entropy), "mask": LAW, "law": LAW,
    "dropout": RATE, "rescale": st.booleans(), "inference": INFERENCE, "n_bins": COUNT,
    "mode": st.sampled_from(["loop", "batched", "grouped"]), "max_rows": COUNT,
    "average": st.sampled_from(["probabilities", "logits"]), "confidence": st.floats(0.5, 0.99),
    "device": st.just("cpu"), "progress": st.just(False), "checkpoint_folder": NO,
    "chunk_size": st.sampled_from([None, 2]), "examples": st.sampled_from([None, (0, 2)]),
    "convention": st.sampled_from(["1/n", "1/(n-1)"]), "objective": st.builds(objective, SEED),
    "theta": st.one_of(NO, POINT), "start": POINT, "end": POINT, "middle": POINT,
    "probabilities": INPUTS.map(lambda x: (x[:, :3]).softmax(1)), "name": st.text(max_size=3),
    "adapter": st.sampled_from(["lora", "adalora"]), "rank": st.integers(1, 3),
    "alpha": st.floats(1, 9), "regularization": st.floats(0, 1), "budget": BUDGET,
    "total_steps": st.integers(2, 9), "orthogonality": RATE, "learning_rate": st.floats(1e-4, 1),
    "base_layer": st.builds(lambda: nn.Linear(4, 3)), "folder": st.builds(folder),
    "masks": MASK_FREE, "n_draws": COUNT, "widths": st.just([0.1, 1.0]), "partitions": COUNT,
    "members": SEED.map(lambda seed: torch.randn(6, 5, 3, generator=generator(seed))),
    "matrix": st.sampled_from(["hessian", "gauss_newton"]), "max_dense": st.sampled_from([0, 512]),
    "max_iterations": st.sampled_from([None, 9]), "tolerance": st.sampled_from([1e-6, 1e-2]),
    "radius": st.floats(0.1, 1), "values": _samples(0, 1), "seeds": st.just((0,)),
}  # fmt: skip


def with_masks(models: Any) -> st.SearchStrategy[dict[str, Any]]:
    """A model and masks of it."""

    def made(chosen: nn.Module, n: int) -> dict[str, Any]:
        masks = ld.sample_masks(chosen, n_instances=n, generator=generator(n))
        return {"model": chosen, "masks": masks}

    return st.builds(made, models, COUNT)


def with_start(chosen: nn.Module) -> dict[str, Any]:
    start = {k: p.detach() for k, p in ld.trainable_parameters(chosen).items()}
    return {"model": chosen, "initial": start}


@st.composite
def update(draw: st.DrawFn) -> dict[str, Any]:
    mask = ld.sample_masks(model(draw(LAW)), n_instances=draw(COUNT)).layers["0"]
    return {
        "x": draw(INPUTS), "A": torch.randn(2, 4), "B": torch.randn(3, 2),
        "mask": draw(st.sampled_from([mask, None])), "scaling": draw(st.floats(-2, 2)),
    }  # fmt: skip


LAYER_MASK = COUNT.map(lambda n: {
    "law": "row_column", "n_instances": n, "rows": torch.rand(n, 4) < 0.5,
    "columns": torch.rand(n, 4) < 0.5, "dropout": 0.5,
})  # fmt: skip
# Arguments that must fit one another, drawn together.
TOGETHER: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "LayerMask": LAYER_MASK,
    "Masks": LAYER_MASK.map(lambda a: {
        "layers": {"0": ld.LayerMask(**a)}, "n_instances": a["n_instances"]}),
    "use_masks": with_masks(MODEL), "masked_update": update(),
    "probes.gibbs.gibbs_kl": FIXED.map(with_start),
    "probes.gibbs.squared_distance": FIXED.map(with_start),
    "probes.ensemble_curve.squared_loss_law": ARGUMENTS["members"].map(lambda m: {
        "members": m, "targets": m[0]}),
} | {
    name: with_masks(FIXED)
    for name in ("instance_loss", "instance_losses", "ensemble_predict",
                 "probes.ensemble_curve.member_outputs")
}  # fmt: skip
# Arguments that one function takes otherwise.
OWN: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "AdaLoRALinear": {"config": CONFIG}, "LoRALinear": {"config": CONFIG},
    "adapt": {"model": st.builds(one_layer).map(lambda m: net()), "config": CONFIG},
    "LoRADropoutConfig": {
        "inference": MASK_FREE,
        "target_modules": st.sampled_from(["all-linear", "a.*", ("q", "v")]),
        "modules_to_save": st.sampled_from([(), ("head",)])},
    "MaskConfig": {"inference": MASK_FREE}, "RankAllocator": {"model": ADALORA},
    "FitConfig": {
        "epochs": COUNT, "batch_size": COUNT, "weight_decay": RATE, "warmup_steps": SEED,
        "schedule": st.sampled_from(["constant", "linear", "cosine"]), "eval_instances": COUNT,
        "max_grad_norm": st.sampled_from([None, 1.0]), "patience": st.sampled_from([None, 2]),
        "precision": st.sampled_from(["float32", "bf16"]), "evaluate_every": COUNT,
        "rank_budget": st.one_of(NO, BUDGET), "checkpoint_every": COUNT},
    "RankBudget": {"target_rank": COUNT, "warmup_steps": SEED, "final_steps": SEED,
                   "interval": COUNT, "beta1": RATE, "beta2": RATE},
    "Replica": {
        "examples": st.sampled_from([None, (0, 1)]), "learning_rate": st.sampled_from([None, 0.1]),
        "dropout": st.sampled_from([None, 0.5]), "init_seed": st.sampled_from([None, 3]),
        "regularization": st.sampled_from([None, 0.1])},
    "enumerate_masks": {"model": st.builds(lambda: ld.adapt(
        nn.Sequential(nn.Linear(2, 2)), ld.LoRADropoutConfig(rank=1)))},
    "fit": {"held_out": st.one_of(NO, DATA), "config": st.builds(
        ld.FitConfig, epochs=st.integers(1, 2), batch_size=st.integers(1, 5), seed=SEED,
        mode=ARGUMENTS["mode"], n_instances=st.just(1), eval_instances=st.just(1))},
    "fit_replicas": {"replicas": st.just([ld.Replica(), ld.Replica(seed=1, examples=(0, 2))]),
                     "config": st.just(ld.FitConfig(epochs=1, n_instances=1))},
    "leave_one_out_replicas": {"n": st.integers(2, 6)},
    "load_adapter": {"folder": st.builds(saved)},
    "merge": {"model": MODEL, "inference": st.sampled_from([None, "mean", "raw"])},
    "orthogonality_penalty": {"model": ADALORA},
    "sample_masks": {"model": MODEL, "seeds": st.sampled_from([None, torch.tensor([3, 4])])},
    "save_adapter": {"inference": st.sampled_from([None, "mean", "raw"])},
    "unmerge": {"model": MODEL.map(ld.merge)},
    "use_masks": {"rows": st.sampled_from([None, 8])},
    "audit.audit": {
        "model": st.builds(one_layer), "initial": NO, "left_out": st.just(2), "loss_cap": NO,
        "regularization": st.sampled_from([None, 0.1]), "delta": st.floats(0.01, 0.5),
        "n_draws": st.just(2), "known": NO, "folder": NO},
    "peft.AttachConfig": {"inference": MASK_FREE},
    "peft.attach": {"model": st.builds(peft_model), "dropout": st.floats(0, 0.9),
                    "rescale": st.just(True), "inference": MASK_FREE},
    "peft.attached_config": {"model": st.builds(peft_model).map(attach)},
    "peft.detach": {"model": st.builds(peft_model).map(attach), "fold": st.booleans()},
    "probes.adapter_objective.AdapterObjective": {
        "weight": RATE, "center": NO, "dtype": st.sampled_from([torch.float32, torch.float64])},
    "probes.ensemble_curve.ensemble_curve": {"sizes": st.sampled_from([[1], [1, 3]])},
    "probes.example_losses.ClippedCrossEntropy": {"bound": st.floats(0.1, 9)},
    "probes.example_losses.example_losses": {"outputs": INPUTS},
    "probes.example_losses.sure_bound": {
        "loss_fn": st.builds(ClippedCrossEntropy, st.floats(0.1, 9))},
    "probes.influence.agreement": {"predicted": _samples(0, 1), "measured": _samples(0, 1)},
    "probes.influence.influence": {
        "damping": st.floats(5, 9), "matrix": st.just("gauss_newton"), "tolerance": st.just(1e-6),
        "max_iterations": st.sampled_from([None, 99])},
    "probes.intervals.Interval": {"low": RATE, "high": st.floats(1, 2)},
    "probes.intervals.clopper_pearson_interval": {
        "successes": st.integers(0, 4), "trials": st.integers(4, 9)},
    "probes.intervals.empirical_bernstein_interval": {"span": st.floats(1, 3)},
    "probes.intervals.percentile_interval": {"resampled": _samples(0, 1)},
    "probes.lipschitz.ball_lipschitz": {
        "n_starts": st.integers(1, 2), "n_steps": st.integers(0, 2)},
    "probes.lipschitz.linear_layer_lipschitz": {
        "model": st.builds(one_layer), "loss": st.just("cross_entropy")},
    "probes.lipschitz.segment_lipschitz": {
        "n_points": st.integers(2, 3), "quadratic": st.just(False)},
    "probes.quality.prediction_quality": {"outputs": INPUTS, "resamples": st.integers(2, 3)},
    "probes.realised_sparsity.realised_sparsity": {"model": st.builds(
        model, law=st.sampled_from(["row_column", "rank", "entrywise"]))},
    "probes.retraining.replace_one": {"examples": NO},
    "probes.retraining.summarize": {
        "values": SEED.map(lambda s: np.random.default_rng(s).normal(size=(2, 4)))},
    "runs.store.Store": {"code": st.just(())},
    "runs.store.run_cells": {
        "compute": st.just(lambda cell: cell["a"] + 1), "cells": st.just([{"a": 1}, {"a": 2}]),
        "store": st.builds(lambda: Store(folder())), "jobs": st.just(1),
        "engine": st.just("local"), "gpus_per_cell": st.just(0.0), "title": st.just("")},
    "tasks.catalogue.find_task": {"name": st.sampled_from(TASK_NAMES)},
    "tasks.digits.digits_target": {
        "n_train": st.integers(10, 20), "n_validation": st.integers(10, 20)},
    "tasks.digits.pretrain_digits": {"epochs": st.just(1)},
    "tasks.instructions.prompt": {"instruction": st.text(), "context": st.text()},
    "tasks.mmlu.prompt": {"question": st.text(), "choices": st.just(["a", "b", "c", "d"]),
                          "subject": st.text()},
    "tasks.vit.VisionTransformer": {
        "image_size": st.just(8), "patch_size": st.sampled_from([2, 4]), "depth": COUNT,
        "width": st.sampled_from([4, 8]), "heads": st.sampled_from([1, 2]), "n_classes": COUNT},
}  # fmt: skip
DOCUMENTED: dict[str, tuple[type[Exception], ...]] = {
    "load_adapter": (FileNotFoundError,), "fit": (FloatingPointError,),
    "audit.audit": (FloatingPointError,), "probes.curvature.curvature": (FloatingPointError,),
    "probes.influence.influence": (ArithmeticError,), "runs.store.Store": (OSError,),
    "runs.store.run_cells": (RuntimeError,),
    # `fit_replicas` warns of replicas whose loss was not finite; here a warning is an error.
    "probes.retraining.leave_one_out": (RuntimeWarning,),
    "probes.retraining.replace_one": (RuntimeWarning,),
}  # fmt: skip
FIXED_ARGUMENTS = {"runs.store.run_cells": frozenset({"jobs", "engine"})}
# What takes long gets a smaller share of the examples.
SHARES = {
    "evaluate": 0.5, "expected_calibration_error": 0.5, "fit": 0.3, "fit_replicas": 0.3,
    "load_adapter": 0.5, "audit.audit": 0.1, "probes.curvature.curvature": 0.3,
    "probes.ensemble_curve.ensemble_curve": 0.3, "probes.influence.influence": 0.3,
    "probes.lipschitz.ball_lipschitz": 0.3, "probes.lipschitz.segment_lipschitz": 0.3,
    "probes.quality.prediction_quality": 0.3, "probes.retraining.leave_one_out": 0.2,
    "probes.retraining.replace_one": 0.2, "tasks.digits.pretrain_digits": 0.1,
}  # fmt: skip


def _use(**arguments: Any) -> None:
    with ld.use_masks(**arguments):
        pass


def _some_masks(arguments: dict[str, Any], result: Any) -> None:
    finite(float(result[1].sum()), 1 - 1e-9, 1 + 1e-9)


def _outputs(arguments: dict[str, Any], result: Any) -> None:
    """Finite inputs give an output for each, and no NaN."""
    inputs = arguments["inputs"]
    assert len(result) == len(inputs)
    settled = not isinstance(inputs, Tensor) or bool(torch.isfinite(inputs).all())
    if settled and float(inputs.abs().max()) < 1e30:
        assert not result.isnan().any()


def _score(arguments: dict[str, Any], result: Any) -> None:
    finite(result.item() if isinstance(result, Tensor) else result, 0.0)


def _agreement(arguments: dict[str, Any], result: Any) -> None:
    no_nan(result.relative_error)  # correlations may be NaN: of constants, as documented


def _clean(arguments: dict[str, Any], result: Any) -> None:
    no_nan(result)


def _done(arguments: dict[str, Any], result: Any) -> None:
    """Nothing to say of the result beyond that there is one."""


HOLDS: dict[str, Callable[[dict[str, Any], Any], None]] = {
    "MaskConfig": lambda a, r: no_nan((r.mean_factor, r.mask_scale)),
    "mean_factor": lambda a, r: finite(r, 0.0, 1.0), "enumerate_masks": _some_masks,
    "masked_update": lambda a, r: finite(r.shape[-1], len(a["B"]), len(a["B"])),
    "ensemble_predict": _outputs, "predict": _outputs, "orthogonality_penalty": _score,
    "expected_calibration_error": _score, "adaptive_calibration_error": _score,
    "negative_log_likelihood": _score, "fit": lambda a, r: no_nan([*r.history[-1].values()]),
    "evaluate": lambda a, r: no_nan([*r.values()]), "probes.influence.agreement": _agreement,
} | dict.fromkeys(
    # Their results carry what wild inputs make of them: outputs of infinite inputs are no numbers.
    ("audit.audit", "instance_loss", "instance_losses", "probes.ensemble_curve.member_outputs",
     "probes.example_losses.example_losses", "fit_replicas", "LayerMask", "Masks"), _done,
)  # fmt: skip
CALLS: dict[str, Callable[..., Any]] = {
    "use_masks": _use, "instance_losses": lambda **a: list(ld.instance_losses(**a)),
    "runs.store.Store": lambda **a: str(Store(**a).path({"a": 1})),
}  # fmt: skip


def case(name: str, call: Callable[..., Any]) -> Case:
    """The attack on a function: by what is drawn together, and by its arguments' names."""
    known, parts = ARGUMENTS | OWN.get(name, {}), TOGETHER.get(name, st.just({}))
    parameters = inspect.signature(call).parameters.values()
    chosen = {
        p.name: known[p.name]
        for p in parameters
        if p.name in known and (name not in TOGETHER or p.name not in _EXAMPLE[name])
    }
    missing = [p.name for p in parameters if p.default is p.empty and p.kind != p.VAR_KEYWORD
               and p.name not in chosen and p.name not in _EXAMPLE.get(name, {})]  # fmt: skip
    if missing:
        raise LookupError(f"{name} takes {missing}, of which ARGUMENTS knows nothing")
    valid = st.builds(lambda a, b: a | b, st.fixed_dictionaries(chosen), parts)
    return Case(
        f"lora_dropout.{name}", CALLS.get(name, call), valid, HOLDS.get(name, _clean),
        wild=anything_of_torch(), documented=DOCUMENTED.get(name, ()),
        fixed=FIXED_ARGUMENTS.get(name, frozenset()), share=SHARES.get(name, 1.0),
    )  # fmt: skip


# Which arguments are drawn together.
_EXAMPLE = dict.fromkeys(
    ("use_masks", "instance_loss", "instance_losses", "probes.ensemble_curve.member_outputs"),
    ("model", "masks"),
) | dict.fromkeys(
    ("probes.gibbs.gibbs_kl", "probes.gibbs.squared_distance"), ("model", "initial"),
) | {
    "ensemble_predict": ("model", "masks", "n_instances", "generator"),  # masks, or draws
    "LayerMask": ("law", "n_instances", "rows", "columns", "dropout"),
    "Masks": ("layers", "n_instances"), "masked_update": ("x", "A", "B", "mask", "scaling"),
    "probes.ensemble_curve.squared_loss_law": ("members", "targets"),
}  # fmt: skip

_WITH_A_TOKENIZER = "takes a tokenizer or rows; its files are attacked in `test_mutated_files`"
_PART = "part of a layer or a task that is attacked as a whole"
_BEHIND = "behind the door, where arguments are valid"
# Public but not attacked alone, and why.
_KERNEL = "behind the door: what the other probes call"
NOT_ATTACKED: dict[str, str] = dict.fromkeys(
    ("LAWS", "MaskLaw", "MaskedLayer", "AdapterLinear", "FitResult", "Replicas", "BrierScore",
     "Averaging"), "abstract, a record that functions return, or a value",
) | {
    "probes.intervals.check_sample": "a check, attacked in all that take a sample",
    "probes.intervals.between": _BEHIND,
    "probes.intervals.student_slack": _BEHIND,
    "probes.lipschitz.slopes_between": _BEHIND,
    "peft.LoRADropoutMixin": "attacked by `lora-dropout train`",
    "peft.LoRADropoutTrainer": "attacked by `lora-dropout train`",
    "probes.adapter_objective.as_array": _KERNEL,
    "runs.store.DamagedError": "an error",
    "audit.Constants": "a record that `audit` returns",
    "audit.Audit": "a record that `audit` returns",
    "tasks.data_warning.DataWarning": "a warning",
    "tasks.digits.digits_pool": "takes nothing",
    "tasks.digits.digits_source": "takes nothing",
    "tasks.vit.Attention": _PART,
    "tasks.vit.Block": _PART,
    "tasks.text.TextTask": "abstract",
    "tasks.text.hub_splits": "asks the network",
} | {
    f"tasks.{name}": _WITH_A_TOKENIZER
    for name in ("glue.require_labels", "mmlu.letter_tokens", "text.check_rows", "text.open_ended",
     "text.read_json", "text.read_tsv", "text.to_rows", "text.tokenize", "text.warn_truncated",
     "text.without_overlap")
}  # fmt: skip


def _below(package: str) -> dict[str, Any]:
    """Functions, and classes that check what they are given, of a package or its modules."""
    home = importlib.import_module(f"lora_dropout.{package}")
    if hasattr(home, "__all__"):
        return {f"{package}.{name}": getattr(home, name) for name in home.__all__}
    inner = [m.name for m in pkgutil.iter_modules(getattr(home, "__path__", []))]
    modules = {f"{package}.{n}": importlib.import_module(f"{home.__name__}.{n}") for n in inner}
    found = {}
    for place, module in (modules or {package: home}).items():
        for name, value in vars(module).items():
            own = getattr(value, "__module__", "") == module.__name__ and name[0] != "_"
            record = hasattr(value, "__dataclass_fields__") and not hasattr(value, "__post_init__")
            record = record and not attrs.has(value)
            if own and (inspect.isfunction(value) or (inspect.isclass(value) and not record)):
                found[f"{place}.{name}"] = value
    return found


def public() -> dict[str, Any]:
    """All that users may call: what is exported, and what probes, audit, peft and tasks hold."""
    found = {name: getattr(ld, name) for name in ld.__all__}
    for package in ("probes", "audit", "peft", "tasks", "runs.store"):
        found |= _below(package)
    return found


_ATTACKED = {name: call for name, call in public().items() if name not in NOT_ATTACKED}
CASES = {f"lora_dropout.{name}": case(name, call) for name, call in _ATTACKED.items()}
