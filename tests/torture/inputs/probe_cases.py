"""Valid calls of the public modules below `lora_dropout`: probes, audit, sweeps, hf, tasks."""

import dataclasses
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

import lora_dropout as ld
from lora_dropout import peft as hf
from lora_dropout.audit import audit
from lora_dropout.probes import (
    adapter_objective,
    curvature,
    ensemble_curve,
    example_losses,
    gap,
    gauge,
    gibbs,
    influence,
    intervals,
    lipschitz,
    quality,
)
from lora_dropout.probes import realised_sparsity as sparsity
from lora_dropout.probes import retraining as stability
from lora_dropout.runs import store as sweeps
from lora_dropout.tasks import catalogue, digits, instructions, mmlu, vit
from tests.torture.inputs import tensors
from tests.torture.inputs.dropout_cases import (
    AVERAGE,
    COUNT,
    DATA,
    FIXED_MODEL,
    GENERATOR,
    INFERENCE,
    INPUTS,
    LAW,
    LOSS,
    RATE,
    SEED,
    TARGETS,
    done,
    folder,
    keywords,
    model,
    with_masks,
)
from tests.torture.inputs.wild import Case, no_nan

CONFIDENCE = st.floats(0.5, 0.99)
MASK_FREE = st.sampled_from(["mean", "raw"])
SAMPLE = SEED.map(lambda seed: np.random.default_rng(seed).uniform(size=5))


def objective(seed: int = 0) -> adapter_objective.AdapterObjective:
    inputs = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed))
    return adapter_objective.AdapterObjective(
        model(), (inputs, torch.tensor([0, 1, 2, 0])), weight=0.1
    )


OBJECTIVE = st.builds(objective, SEED)
POINT = st.builds(lambda seed: objective(seed).point() + 0.01 * seed, SEED)
MEMBERS = SEED.map(lambda seed: torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(seed)))


def numbers_in(result: Any) -> None:
    """No NaN in a record, its arrays and tensors included."""
    if isinstance(result, Tensor):
        assert not result.isnan().any(), "NaN in a tensor"
    elif dataclasses.is_dataclass(result) and not isinstance(result, type):
        for item in dataclasses.fields(result):
            numbers_in(getattr(result, item.name))
    else:
        no_nan(result)


def sound(arguments: dict[str, Any], result: Any) -> None:
    numbers_in(result)


def agrees(arguments: dict[str, Any], result: Any) -> None:
    no_nan(result.relative_error)  # correlations may be NaN: of constants, as documented


def case(name: str, valid: Any, call: Any, holds: Any = sound, **more: Any) -> Case:
    return Case(
        f"lora_dropout.{name}", call, valid, holds, wild=tensors.anything(), bend=tensors.bend,
        **more,
    )  # fmt: skip


def one_layer() -> nn.Module:
    return ld.adapt(nn.Sequential(nn.Linear(4, 3)), ld.LoRADropoutConfig(rank=2))


def peft_model() -> nn.Module:
    config = LoraConfig(r=2, target_modules=["0"])
    return get_peft_model(nn.Sequential(nn.Linear(4, 3)), config)  # type: ignore[arg-type]


def store(**arguments: Any) -> str:
    return str(sweeps.Store(**arguments).path({"a": 1}))


def compute(cell: Any) -> Any:
    return cell["a"] + 1


TUNED = st.just(ld.FitConfig(epochs=1, n_instances=1, batch_size=5))
# `fit_replicas` warns of replicas whose loss was not finite; here a warning is an error.
_WARNS = (RuntimeWarning,)
RETRAIN = {
    "config": TUNED, "loss_fn": LOSS, "examples": st.sampled_from([None, (0, 2)]),
    "seeds": st.just((0,)), "masks": MASK_FREE, "confidence": CONFIDENCE,
    "device": st.just("cpu"), "chunk_size": st.sampled_from([None, 2]),
    "checkpoint_folder": st.none(), "progress": st.just(False),
}  # fmt: skip
CASES: tuple[Case, ...] = (
    case("probes.intervals.Interval", keywords(low=RATE, high=st.floats(1, 2),
                                               confidence=CONFIDENCE), intervals.Interval),
    case("probes.intervals.clopper_pearson_interval", keywords(
        successes=st.integers(0, 4), trials=st.integers(4, 9), confidence=CONFIDENCE),
        intervals.clopper_pearson_interval),
    case("probes.intervals.empirical_bernstein_interval", keywords(
        values=SAMPLE, span=st.floats(1, 3), confidence=CONFIDENCE),
        intervals.empirical_bernstein_interval),
    case("probes.intervals.t_interval", keywords(values=SAMPLE, confidence=CONFIDENCE),
         intervals.t_interval),
    case("probes.intervals.percentile_interval", keywords(resampled=SAMPLE, confidence=CONFIDENCE),
         intervals.percentile_interval),
    case("probes.retraining.summarize", keywords(
        values=SEED.map(lambda s: np.random.default_rng(s).normal(size=(2, 4))),
        confidence=CONFIDENCE), stability.summarize),
    case("probes.example_losses.ClippedCrossEntropy", keywords(bound=st.floats(0.1, 9)),
         example_losses.ClippedCrossEntropy),
    case("probes.example_losses.example_losses", keywords(
        loss_fn=LOSS, outputs=INPUTS, targets=TARGETS), example_losses.example_losses, done),
    case("probes.example_losses.sure_bound", keywords(loss_fn=st.builds(
        example_losses.ClippedCrossEntropy, st.floats(0.1, 9))), example_losses.sure_bound),
    case("probes.adapter_objective.AdapterObjective", keywords(
        model=FIXED_MODEL, data=DATA, loss_fn=LOSS, masks=MASK_FREE, weight=RATE,
        center=st.none(), dtype=st.sampled_from([torch.float32, torch.float64]), max_rows=COUNT),
        adapter_objective.AdapterObjective, done),
    case("probes.curvature.curvature", keywords(
        objective=OBJECTIVE, theta=st.one_of(st.none(), POINT),
        matrix=st.sampled_from(["hessian", "gauss_newton"]), max_dense=st.sampled_from([0, 512]),
        tolerance=st.sampled_from([1e-6, 1e-2]), max_iterations=st.sampled_from([None, 9]),
        seed=SEED), curvature.curvature, documented=(FloatingPointError,), share=0.3),
    case("probes.gauge.gauge_space", keywords(
        objective=OBJECTIVE, theta=st.one_of(st.none(), POINT)), gauge.gauge_space, share=0.5),
    case("probes.influence.influence", keywords(
        objective=OBJECTIVE, theta=st.one_of(st.none(), POINT), damping=st.floats(5, 9),
        examples=st.sampled_from([None, (0, 2)]), matrix=st.just("gauss_newton"),
        max_dense=st.sampled_from([0, 512]), tolerance=st.just(1e-6),
        max_iterations=st.sampled_from([None, 99])), influence.influence,
        documented=(ArithmeticError,), share=0.3),
    case("probes.influence.agreement", keywords(predicted=SAMPLE, measured=SAMPLE),
         influence.agreement, agrees),
    case("probes.lipschitz.segment_lipschitz", keywords(
        objective=OBJECTIVE, start=POINT, end=POINT, n_points=st.integers(2, 3),
        quadratic=st.just(False)), lipschitz.segment_lipschitz, share=0.3),
    case("probes.lipschitz.ball_lipschitz", keywords(
        objective=OBJECTIVE, middle=POINT, radius=st.floats(0.1, 2), n_starts=st.integers(1, 2),
        n_steps=st.integers(0, 2), generator=GENERATOR), lipschitz.ball_lipschitz, share=0.3),
    case("probes.lipschitz.linear_layer_lipschitz", keywords(
        model=st.builds(one_layer), data=DATA, radius=RATE,
        loss=st.sampled_from(["cross_entropy"])), lipschitz.linear_layer_lipschitz),
    case("probes.gap.generalization_gap", keywords(
        model=FIXED_MODEL, train=DATA, held_out=DATA, loss_fn=LOSS, inference=INFERENCE,
        n_instances=COUNT, seed=SEED, confidence=CONFIDENCE), gap.generalization_gap, share=0.5),
    case("probes.gibbs.gibbs_risk", keywords(
        model=FIXED_MODEL, data=DATA, loss_fn=LOSS, widths=st.just([0.1, 1.0]), n_draws=COUNT,
        seed=SEED), gibbs.gibbs_risk, share=0.5),
    case("probes.gibbs.squared_distance", FIXED_MODEL.map(lambda m: {
        "model": m, "initial": {k: p.detach() for k, p in ld.trainable_parameters(m).items()}}),
        gibbs.squared_distance),
    case("probes.gibbs.gibbs_kl", FIXED_MODEL.flatmap(lambda m: keywords(
        model=st.just(m), inputs=INPUTS, widths=st.just([0.1, 1.0]),
        initial=st.just({k: p.detach() for k, p in ld.trainable_parameters(m).items()}))),
        gibbs.gibbs_kl, share=0.5),
    case("probes.ensemble_curve.member_outputs", with_masks(FIXED_MODEL, inputs=INPUTS),
         ensemble_curve.member_outputs, done),
    case("probes.ensemble_curve.ensemble_curve", keywords(
        members=MEMBERS, targets=TARGETS, sizes=st.sampled_from([[1], [1, 3]]), loss_fn=LOSS,
        average=AVERAGE, partitions=COUNT, seed=SEED), ensemble_curve.ensemble_curve, share=0.3),
    case("probes.ensemble_curve.squared_loss_law", MEMBERS.map(lambda m: {
        "members": m, "targets": m[0]}), ensemble_curve.squared_loss_law),
    case("probes.quality.prediction_quality", keywords(
        outputs=INPUTS, targets=TARGETS, n_bins=COUNT, resamples=st.integers(2, 3),
        confidence=CONFIDENCE, seed=SEED), quality.prediction_quality, share=0.3),
    case("probes.sparsity.realised_sparsity", keywords(
        model=st.builds(model, law=st.sampled_from(["row_column", "rank", "entrywise"])),
        n_draws=COUNT, generator=GENERATOR, confidence=CONFIDENCE), sparsity.realised_sparsity),
    case("probes.stability.leave_one_out", keywords(
        model=FIXED_MODEL, train=DATA, convention=st.sampled_from(["1/n", "1/(n-1)"]), **RETRAIN),
        stability.leave_one_out, documented=_WARNS, share=0.25),
    case("probes.stability.replace_one", keywords(
        model=FIXED_MODEL, train=DATA, spares=DATA, **RETRAIN | {"examples": st.none()}),
        stability.replace_one, documented=_WARNS, share=0.25),
    case("audit.audit", keywords(
        model=st.builds(one_layer), train=DATA, held_out=DATA, config=TUNED, initial=st.none(),
        regularization=st.sampled_from([None, 0.1]), left_out=st.just(2), loss_cap=st.none(),
        delta=st.floats(0.01, 0.5), n_draws=st.just(2), known=st.none(), seed=SEED,
        folder=st.none(), progress=st.just(False)), audit, done,
        documented=(FloatingPointError,), share=0.25),
    case("sweeps.Store", keywords(folder=st.builds(folder), code=st.just(())), store, done,
         documented=(OSError,), share=0.2),
    case("sweeps.run_cells", keywords(
        compute=st.just(compute), cells=st.just([{"a": 1}, {"a": 2}]),
        store=st.builds(lambda: sweeps.Store(folder())), jobs=st.just(1),
        engine=st.just("local"), gpus_per_cell=st.just(0.0), title=st.just("")),
        sweeps.run_cells, done, documented=(RuntimeError,), fixed=frozenset({"jobs", "engine"}),
        share=0.2),
    case("sweeps.run_cells without cells", keywords(
        compute=st.just(compute), cells=st.just([]),
        store=st.builds(lambda: sweeps.Store(folder())), jobs=st.sampled_from([1, None]),
        engine=st.just("local"), gpus_per_cell=st.just(0.0)),
        sweeps.run_cells, done, fixed=frozenset({"cells"}), share=0.2),
    case("hf.attach", keywords(
        model=st.builds(peft_model), dropout=st.floats(0, 0.9), mask=LAW, n_instances=COUNT,
        rescale=st.just(True), inference=MASK_FREE), hf.attach, done, share=0.2),
    case("hf.detach", keywords(
        model=st.builds(peft_model).map(hf.attach), fold=st.booleans()), hf.detach, done,
        share=0.2),
    case("hf.attached_config", keywords(model=st.builds(peft_model).map(hf.attach)),
         hf.attached_config, done, share=0.2),
    case("hf.AttachConfig", keywords(dropout=RATE, mask=LAW), hf.AttachConfig, done),
    case("tasks.catalogue.find_task", keywords(name=st.sampled_from(catalogue.TASK_NAMES)),
         catalogue.find_task, done, share=0.2),
    case("tasks.instructions.prompt", keywords(instruction=st.text(), context=st.text()),
         instructions.prompt, done, share=0.2),
    case("tasks.mmlu.prompt", keywords(
        question=st.text(), choices=st.just(["a", "b", "c", "d"]), subject=st.text()),
        mmlu.prompt, done, share=0.2),
    case("tasks.digits.digits_target", keywords(
        seed=SEED, n_train=st.integers(10, 20), n_validation=st.integers(10, 20)),
        digits.digits_target, done, share=0.2),
    case("tasks.vit.VisionTransformer", keywords(
        image_size=st.just(8), patch_size=st.sampled_from([2, 4]), width=st.sampled_from([4, 8]),
        depth=COUNT, heads=st.sampled_from([1, 2]), n_classes=COUNT), vit.VisionTransformer, done,
        share=0.2),
    case("tasks.digits.pretrain_digits", keywords(
        seed=SEED, epochs=st.just(1), progress=st.just(False)), digits.pretrain_digits, done,
        fixed=frozenset(), share=0.1),
)  # fmt: skip

# Public but not attacked alone, and why.
_WITH_A_TOKENIZER = "takes a tokenizer or rows; its files are attacked in `readers`"
_PART = "part of a layer or a task that is attacked as a whole"
_BELOW = "behind the door, where arguments are valid"
NOT_ATTACKED: dict[str, str] = {
    "probes.intervals.check_sample": "a check, attacked in all that take a sample",
    "probes.intervals.between": _BELOW,
    "probes.intervals.student_slack": _BELOW,
    "probes.lipschitz.slopes_between": _BELOW,
    "probes.adapter_objective.as_array": _BELOW,
    "hf.LoRADropoutMixin": "attacked by `lora-dropout train`",
    "hf.LoRADropoutTrainer": "attacked by `lora-dropout train`",
    "sweeps.DamagedError": "an error",
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
