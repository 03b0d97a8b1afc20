"""Valid calls of everything public in `lora_dropout`, and what their results must be."""

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import lora_dropout as ld
from tests.torture.inputs import tensors
from tests.torture.inputs.wild import Case, Valid, finite, no_nan

SEED, RATE = st.integers(0, 9), st.floats(0.0, 1.0)
LAW = st.sampled_from(ld.LAWS)
COUNT = st.integers(1, 4)
INFERENCE = st.sampled_from(["ensemble", "mean", "raw"])
AVERAGE = st.sampled_from(["probabilities", "logits"])
MODE = st.sampled_from(["loop", "batched", "grouped"])
_FOLDER = tempfile.TemporaryDirectory(prefix="torture-")
_NUMBER = itertools.count()


def folder() -> Path:
    """A folder that no other example has."""
    return Path(_FOLDER.name) / str(next(_NUMBER))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(law: Any = "row_column", dropout: float = 0.5, adapter: Any = "lora") -> nn.Module:
    """An adapted model of 4 features and 3 classes, its factors drawn."""
    base = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))
    config = ld.LoRADropoutConfig(rank=2, mask=law, dropout=dropout, adapter=adapter)
    made = ld.adapt(base, config, generator=generator())
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(1)) * 0.5)
    return made


MODEL = st.builds(model, law=LAW, dropout=st.sampled_from([0.0, 0.3, 0.9]))
FIXED_MODEL = st.builds(model, law=st.sampled_from(["row_column", "rank", "none"]))
ADALORA = st.builds(model, adapter=st.just("adalora"))
INPUTS = SEED.map(lambda seed: torch.randn(5, 4, generator=generator(seed)))
TARGETS = SEED.map(lambda seed: torch.randint(3, (5,), generator=generator(seed)))
DATA = st.tuples(INPUTS, TARGETS)
GENERATOR = SEED.map(generator)
LOSS = st.just(F.cross_entropy)
PROBABILITIES = INPUTS.map(lambda x: x.softmax(dim=1)[:, :3] / x.softmax(1)[:, :3].sum(1, True))
CONFIG = st.builds(
    ld.LoRADropoutConfig, rank=st.integers(1, 2), dropout=RATE, mask=LAW, rescale=st.booleans()
)
FIT = st.builds(
    ld.FitConfig, epochs=st.integers(1, 2), batch_size=st.integers(1, 5), mode=MODE,
    n_instances=st.integers(1, 2), eval_instances=st.just(1), seed=SEED,
)  # fmt: skip
LINEAR = st.builds(lambda: nn.Linear(4, 3))


def keywords(**items: Any) -> Valid:
    return st.fixed_dictionaries(items)


def clean(arguments: dict[str, Any], result: Any) -> None:
    no_nan(result)


def done(arguments: dict[str, Any], result: Any) -> None:
    """Nothing to say of the result beyond that there is one."""


def settled(tensor: Any) -> bool:
    return not isinstance(tensor, Tensor) or bool(torch.isfinite(tensor).all())


def outputs(arguments: dict[str, Any], result: Any) -> None:
    """Finite inputs give an output for each, and no NaN."""
    inputs = arguments["inputs"]
    assert len(result) == len(inputs)
    if settled(inputs) and float(inputs.abs().max()) < 1e30:
        assert not result.isnan().any()


def score(arguments: dict[str, Any], result: Any) -> None:
    finite(result.item() if isinstance(result, Tensor) else result, 0.0)


def case(name: str, valid: Valid, holds: Any = clean, call: Any = None, **more: Any) -> Case:
    found: Callable[..., Any] = call or getattr(ld, name)
    return Case(
        f"lora_dropout.{name}", found, valid, holds, wild=tensors.anything(), bend=tensors.bend,
        **more,
    )  # fmt: skip


def with_masks(draw_from: Any, **more: Any) -> Valid:
    """A model and masks of it."""

    def made(drawn: tuple[nn.Module, int]) -> dict[str, Any]:
        chosen, n = drawn
        masks = ld.sample_masks(chosen, n_instances=n, generator=generator(n))
        return {"model": chosen, "masks": masks}

    pairs = st.tuples(draw_from, COUNT).map(made)
    return st.tuples(pairs, keywords(**more)).map(lambda both: both[0] | both[1])


def use(**arguments: Any) -> None:
    with ld.use_masks(**arguments):
        pass


def saved() -> Path:
    target = folder()
    ld.save_adapter(model(), target)
    return target


@st.composite
def update(draw: st.DrawFn) -> dict[str, Any]:
    chosen = model(draw(LAW))
    mask = ld.sample_masks(chosen, n_instances=draw(COUNT)).layers["0"]
    return {
        "x": draw(INPUTS), "A": torch.randn(2, 4), "B": torch.randn(3, 2),
        "mask": draw(st.sampled_from([mask, None])), "scaling": draw(st.floats(-2, 2)),
    }  # fmt: skip


@st.composite
def layer_mask(draw: st.DrawFn) -> dict[str, Any]:
    n = draw(COUNT)
    bits = torch.rand(n, 4) < 0.5
    return {
        "law": "row_column", "n_instances": n, "rows": bits, "columns": bits, "dropout": 0.5,
    }  # fmt: skip


BUDGET = st.builds(ld.RankBudget, target_rank=st.just(1))
CASES: tuple[Case, ...] = (
    case("MaskConfig", keywords(dropout=RATE, mask=LAW, rescale=st.booleans(),
                                inference=st.sampled_from(["mean", "raw"])),
         lambda a, r: no_nan((r.mean_factor, r.mask_scale))),
    case("LoRADropoutConfig", keywords(
        rank=COUNT, alpha=st.floats(1, 9), adapter=st.sampled_from(["lora", "adalora"]),
        target_modules=st.sampled_from(["all-linear", "a.*", ("q", "v")]),
        modules_to_save=st.sampled_from([(), ("head",)]), dropout=RATE, mask=LAW)),
    case("FitConfig", keywords(
        epochs=COUNT, batch_size=COUNT, learning_rate=st.floats(1e-4, 1), weight_decay=RATE,
        schedule=st.sampled_from(["constant", "linear", "cosine"]), warmup_steps=SEED,
        max_grad_norm=st.sampled_from([None, 1.0]), n_instances=COUNT, mode=MODE,
        inference=INFERENCE, eval_instances=COUNT, precision=st.sampled_from(["float32", "bf16"]),
        patience=st.sampled_from([None, 2]), rank_budget=st.one_of(st.none(), BUDGET),
        orthogonality=RATE, regularization=RATE, evaluate_every=COUNT, checkpoint_every=COUNT,
        seed=SEED)),
    case("RankBudget", keywords(target_rank=COUNT, warmup_steps=SEED, final_steps=SEED,
                                interval=COUNT, beta1=RATE, beta2=RATE)),
    case("Replica", keywords(
        seed=SEED, examples=st.sampled_from([None, (0, 1)]),
        learning_rate=st.sampled_from([None, 0.1]), dropout=st.sampled_from([None, 0.5]),
        regularization=st.sampled_from([None, 0.1]), init_seed=st.sampled_from([None, 3]))),
    case("leave_one_out_replicas", keywords(n=st.integers(2, 6), seed=SEED), done),
    case("mean_factor", keywords(law=LAW, dropout=RATE),
         lambda a, r: finite(r, 0.0, 1.0)),
    case("LayerMask", layer_mask(), done),
    case("Masks", layer_mask().map(lambda a: {
        "layers": {"0": ld.LayerMask(**a)}, "n_instances": a["n_instances"]}), done),
    case("sample_masks", keywords(model=MODEL, n_instances=COUNT, generator=GENERATOR,
                                  seeds=st.sampled_from([None, torch.tensor([3, 4])])), done),
    case("enumerate_masks", keywords(model=st.builds(
        lambda: ld.adapt(nn.Sequential(nn.Linear(2, 2)), ld.LoRADropoutConfig(rank=1)))),
        lambda a, r: finite(float(r[1].sum()), 1 - 1e-9, 1 + 1e-9)),
    case("use_masks", with_masks(MODEL, rows=st.sampled_from([None, 8])), done, use),
    case("masked_update", update(), lambda a, r: finite(r.shape[-1], len(a["B"]), len(a["B"]))),
    case("masked_layers", keywords(model=MODEL), done),
    case("adapters", keywords(model=MODEL), done),
    case("trainable_parameters", keywords(model=MODEL), done),
    case("adapt", keywords(model=LINEAR.map(nn.Sequential), config=CONFIG, generator=GENERATOR),
         done),
    case("LoRALinear", keywords(base_layer=LINEAR, config=CONFIG, name=st.text(max_size=3),
                                generator=GENERATOR), done),
    case("AdaLoRALinear", keywords(base_layer=LINEAR, config=CONFIG, name=st.text(max_size=3),
                                   generator=GENERATOR), done),
    case("merge", keywords(model=MODEL, inference=st.sampled_from([None, "mean", "raw"])), done),
    case("unmerge", keywords(model=MODEL.map(ld.merge)), done),
    case("save_adapter", keywords(model=FIXED_MODEL, folder=st.builds(folder),
                                  inference=st.sampled_from([None, "mean", "raw"])), done),
    case("load_adapter", keywords(model=FIXED_MODEL, folder=st.builds(saved)), done,
         documented=(FileNotFoundError,), share=0.5),
    case("instance_loss", with_masks(FIXED_MODEL, inputs=INPUTS, targets=TARGETS, mode=MODE,
                                     loss_fn=LOSS), done),
    case("instance_losses", with_masks(FIXED_MODEL, inputs=INPUTS, targets=TARGETS, mode=MODE,
                                       loss_fn=LOSS), done,
         lambda **arguments: list(ld.instance_losses(**arguments))),
    case("RankAllocator", keywords(model=ADALORA, budget=BUDGET, total_steps=st.integers(2, 9)),
         done),
    case("orthogonality_penalty", keywords(model=ADALORA), score),
    case("fit", keywords(
        model=FIXED_MODEL, train=DATA, held_out=st.one_of(st.none(), DATA), config=FIT,
        loss_fn=LOSS, device=st.just("cpu"), checkpoint_folder=st.none(),
        progress=st.just(False)), lambda a, r: no_nan([*r.history[-1].values()]),
        documented=(FloatingPointError,), share=0.3),
    case("fit_replicas", keywords(
        model=FIXED_MODEL, train=DATA,
        replicas=st.just([ld.Replica(), ld.Replica(seed=1, examples=(0, 2))]),
        config=st.just(ld.FitConfig(epochs=1, n_instances=1)), loss_fn=LOSS,
        device=st.just("cpu"), chunk_size=st.sampled_from([None, 1]), checkpoint_folder=st.none(),
        progress=st.just(False)), done, share=0.3),
    case("ensemble_predict", with_masks(FIXED_MODEL, inputs=INPUTS, average=AVERAGE,
                                        max_rows=COUNT), outputs),
    case("predict", keywords(model=FIXED_MODEL, inputs=INPUTS, inference=INFERENCE,
                             n_instances=COUNT, generator=GENERATOR, average=AVERAGE,
                             max_rows=COUNT), outputs),
    case("evaluate", keywords(model=FIXED_MODEL, data=DATA, inference=INFERENCE,
                              n_instances=COUNT, generator=GENERATOR, loss_fn=LOSS),
         lambda a, r: no_nan([*r.values()]), share=0.5),
    case("expected_calibration_error", keywords(
        probabilities=PROBABILITIES, targets=TARGETS, n_bins=COUNT), score, share=0.5),
    case("adaptive_calibration_error", keywords(
        probabilities=PROBABILITIES, targets=TARGETS, n_bins=COUNT), score),
    case("brier_score", keywords(probabilities=PROBABILITIES, targets=TARGETS, n_bins=COUNT)),
    case("negative_log_likelihood", keywords(probabilities=PROBABILITIES, targets=TARGETS), score),
)  # fmt: skip

# Abstract classes, records that only hold what functions return, and values.
NOT_CALLED = {
    "LAWS", "MaskLaw", "MaskedLayer", "AdapterLinear", "FitResult", "Replicas", "BrierScore",
    "Averaging",
}  # fmt: skip
