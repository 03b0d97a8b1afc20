"""`fit`: train the adapters of a model, with history, checkpoints and exact resumption."""

import math
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from lora_dropout.adapters.adapt import check_frozen, trainable_parameters
from lora_dropout.adapters.layer import need_masked_layers
from lora_dropout.adapters.rank_budget import RankAllocator, orthogonality_penalty
from lora_dropout.adapters.use_masks import sample_masks
from lora_dropout.data import Data, Inputs, LossFn, map_inputs, model_device
from lora_dropout.door import check_device, checked, unchecked
from lora_dropout.masks.config import MaskConfig
from lora_dropout.prediction.evaluate import evaluate
from lora_dropout.seeds import derived_generator, derived_seed
from lora_dropout.training.checkpoint import (
    check_state,
    damage,
    fingerprint,
    load_checkpoint,
    run_identity,
    save_checkpoint,
)
from lora_dropout.training.fit_config import FitConfig
from lora_dropout.training.objective import instance_terms
from lora_dropout.training.penalty import SparsityPenalty


@dataclass(frozen=True)
class FitResult:
    """What a run left behind, beside the trained model.

    Attributes:
        history: One record an evaluation, the untrained model (epoch 0) first. Keys: `epoch`,
            `step`, `objective` (mean masked training loss of the epoch; absent at epoch 0),
            `train_loss`, and with class targets `train_accuracy`, `train_ece`; with held-out data
            the same under `held_out_`, and `gap` = held-out loss - training loss.
        best_epoch: Epoch of the lowest held-out loss (None without held-out data).
        stopped_early: Whether patience ran out.
    """

    history: list[dict[str, float]]
    best_epoch: int | None
    stopped_early: bool


@checked
def fit(
    model: nn.Module,
    train: Data,
    *,
    held_out: Data | None = None,
    config: FitConfig | None = None,
    loss_fn: LossFn = F.cross_entropy,
    device: str | torch.device = "auto",
    checkpoint_folder: str | Path | None = None,
    progress: bool = True,
) -> FitResult:
    """Train the adapters (and saved modules) of a model by the N-instance loss (Eq. 7).

    Args:
        model: An adapted model; it is trained in place, moved to `device`, left in eval mode.
        train: (inputs, targets); inputs is a tensor or a mapping of tensors.
        held_out: The same, for the history and early stopping. What stopped the training is no
            longer unseen: keep a third set for the final figure.
        config: Settings; None is the default ones.
        loss_fn: (outputs, targets) -> scalar, a mean over examples.
        device: `auto` takes a GPU if there is one.
        checkpoint_folder: Where to checkpoint, and to resume from if a checkpoint of the same
            run is there. On CPU a resumed run ends bit-identical to an uninterrupted one.
        progress: Whether to show a progress bar (on standard error).

    Returns:
        History and outcome.

    Raises:
        ValueError: If data are empty, settings do not fit the model, or a checkpoint is damaged
            or of another run.
        FloatingPointError: If the loss or a gradient is not finite; weights and checkpoints stay
            as they were before that step.
    """
    config = FitConfig() if config is None else config
    if held_out is None and config.patience is not None:
        raise ValueError(f"patience={config.patience} needs held_out data, got held_out=None")
    for name, layer in need_masked_layers(model).items():
        if layer.merged:
            raise ValueError(f"model must be unmerged before training, layer {name!r} is merged")
    if hasattr(getattr(model, "base_model", None), "rankallocator"):
        raise ValueError(
            "model must have no trainable AdaLoRA adapter of PEFT, whose ranks would not fall "
            "here: train it by LoRADropoutTrainer, or use adapter='adalora' and rank_budget"
        )
    check_frozen(model)
    run = _Run(model, train, held_out, config, loss_fn, resolve_device(device))
    folder = None if checkpoint_folder is None else Path(checkpoint_folder)
    with own_random_numbers(config.seed, run.device):
        return _train(run, folder, progress=progress)


def _train(run: "_Run", folder: Path | None, *, progress: bool) -> FitResult:
    config = run.config
    settings = {} if folder is None else run.settings()
    if folder is not None:
        state = load_checkpoint(folder, settings=settings)
        if state is not None:
            run.restore(state, folder)
    if not run.history:
        run.record()
    bar = tqdm(
        total=config.epochs, initial=run.epoch, unit="epoch", disable=not progress, leave=False
    )
    with bar:
        while run.epoch < config.epochs and not run.stopped:
            run.train_epoch()
            bar.update()
            bar.set_postfix({k: f"{run.history[-1][k]:.3g}" for k in run.shown})
            last = run.epoch == config.epochs or run.stopped
            if folder is not None and (last or run.epoch % config.checkpoint_every == 0):
                save_checkpoint(folder, {"settings": settings, **run.state()})
    return run.finish()


@contextmanager
def own_random_numbers(seed: int, device: torch.device) -> Iterator[None]:
    """Let a model's own random numbers, as of `nn.Dropout`, be those of a run's seed.

    Args:
        seed: Of the run.
        device: Where it runs.

    Yields:
        Nothing; torch's global generators are as before afterwards.
    """
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.set_rng_state(derived_generator(seed, "model").get_state())
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(derived_seed(seed, "model"))
        yield


@dataclass
class _Run:
    """One training run: everything a checkpoint must carry, and the loop over one epoch."""

    model: nn.Module
    train: Data
    held_out: Data | None
    config: FitConfig
    loss_fn: LossFn
    device: torch.device
    epoch: int = 0
    step: int = 0
    stopped: bool = False
    best_epoch: int | None = None
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = self.config
        self.model.to(self.device)
        model_device(self.model)
        self.parameters = trainable_parameters(self.model)
        self.buffers = dict(self.model.named_buffers())
        self.inputs, self.targets = self._move(self.train)
        self.generator = derived_generator(config.seed, "training")
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        steps_per_epoch = math.ceil(len(self.targets) / config.batch_size)
        self.total_steps = steps_per_epoch * config.epochs
        adapter = self._mask_config()
        # Identical instances: one of them is the whole sum.
        masked = adapter.mask != "none" and adapter.dropout > 0
        self.n_instances = config.n_instances if masked else 1
        self.eval_instances = config.eval_instances if masked else 1
        self.allocator = (
            RankAllocator(self.model, config.rank_budget, total_steps=self.total_steps)
            if config.rank_budget is not None
            else None
        )
        adalora = getattr(adapter, "adapter", None) == "adalora"
        self.orthogonality = config.orthogonality if adalora else 0.0
        self.penalty = (
            SparsityPenalty(self.model, config.regularization) if config.regularization else None
        )
        self.shown = ["train_loss"] + (["held_out_loss"] if self.held_out is not None else [])

    def settings(self) -> dict[str, Any]:
        return {
            **attrs.asdict(self.config),
            "adapter": attrs.asdict(self._mask_config()),
            "train": fingerprint(self.train),
            "held_out": None if self.held_out is None else fingerprint(self.held_out),
            **run_identity(self.model, self.parameters, self.loss_fn, self.device),
        }

    def _mask_config(self) -> MaskConfig:
        return next(iter(need_masked_layers(self.model).values())).config

    def train_epoch(self) -> None:
        order = torch.randperm(len(self.targets), generator=self.generator)
        total = 0.0
        for indices in order.split(self.config.batch_size):
            total += self._train_step(indices.to(self.device)) * len(indices)
        self.epoch += 1
        if self.epoch % self.config.evaluate_every == 0 or self.epoch == self.config.epochs:
            self.record(objective=total / len(order))

    def _train_step(self, indices: Tensor) -> float:
        config = self.config
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        autocast = (
            torch.autocast(self.device.type, torch.bfloat16)
            if config.precision == "bf16"
            else nullcontext()
        )
        masks = unchecked(sample_masks)(
            self.model, n_instances=self.n_instances, generator=self.generator
        )
        terms = instance_terms(
            self.model,
            map_inputs(lambda t: t[indices], self.inputs),
            self.targets[indices],
            masks=masks,
            mode=config.mode,
            loss_fn=self.loss_fn,
        )
        value = 0.0
        with closing(terms):
            while True:
                with autocast:
                    term = next(terms, None)
                if term is None:
                    break
                value += term.item()
                if not math.isfinite(value):
                    raise FloatingPointError(
                        f"loss must be finite, got loss={value} at step {self.step + 1} (learning_"
                        f"rate={config.learning_rate}); weights are those before the step"
                    )
                # Here the term's masks are active, as activation checkpointing needs them.
                term.backward()
        if self.orthogonality:
            (self.orthogonality * orthogonality_penalty(self.model)).backward()
        if self.penalty:
            self.penalty().backward()
        self._check_gradients()
        if self.allocator:
            self.allocator.observe()
        if config.max_grad_norm is not None:
            # By name: the order of a sum, here of squares, decides its last bits.
            by_name = [self.parameters[name] for name in sorted(self.parameters)]
            nn.utils.clip_grad_norm_(by_name, config.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * self._rate_at(self.step)
        self.optimizer.step()
        self.step += 1
        if self.allocator:
            self.allocator.prune(self.step)
        return value

    def _check_gradients(self) -> None:
        gradients = {name: p.grad for name, p in self.parameters.items() if p.grad is not None}
        # One sum over all says it in the usual case, at the cost of one wait for the device.
        total = torch.stack([g.detach().float().abs().sum() for g in gradients.values()]).sum()
        if not math.isfinite(total.item()):
            bad = [name for name, g in gradients.items() if not torch.isfinite(g).all()]
            if bad:
                raise FloatingPointError(
                    f"gradients must be finite, those of {bad} are not at step {self.step + 1}; "
                    "weights are those before the step"
                )

    def record(self, **extra: float) -> None:
        record: dict[str, float] = {"epoch": self.epoch, "step": self.step, **extra}
        record |= {f"train_{k}": v for k, v in self._evaluate(self.train).items()}
        if self.held_out is not None:
            record |= {f"held_out_{k}": v for k, v in self._evaluate(self.held_out).items()}
            record["gap"] = record["held_out_loss"] - record["train_loss"]
        self.history.append(record)
        if self.held_out is not None:
            self._track_best(record["held_out_loss"])

    def _track_best(self, loss: float) -> None:
        losses = [past["held_out_loss"] for past in self.history[:-1]]
        if not losses or loss < min(losses):
            self.best_epoch = self.epoch
            if self.config.patience is not None:
                self.best = {k: t.detach().clone() for k, t in self._weights().items()}
        elif self.config.patience is not None and self.best_epoch is not None:
            self.stopped = self.epoch - self.best_epoch >= self.config.patience

    def _evaluate(self, data: Data) -> dict[str, float]:
        return unchecked(evaluate)(
            self.model,
            data,
            inference=self.config.inference,
            n_instances=self.eval_instances,
            generator=derived_generator(self.config.seed, "evaluation"),
            loss_fn=self.loss_fn,
        )

    def finish(self) -> FitResult:
        if self.best:
            self._load_weights(self.best)
        self.model.eval()
        return FitResult(self.history, self.best_epoch, self.stopped)

    def state(self) -> dict[str, Any]:
        cuda = self.device.type == "cuda"
        return {
            "epoch": self.epoch,
            "stopped": self.stopped,
            "best_epoch": self.best_epoch,
            "best": self.best,
            "history": self.history,
            "weights": {k: t.detach() for k, t in self._weights().items()},
            "moments": {
                # Those of a parameter that no loss depends on are what they would begin as.
                name: dict(self.optimizer.state.get(p) or _no_moments(p))
                for name, p in self.parameters.items()
            },
            "generator": self.generator.get_state(),
            "global_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if cuda else None,
            "allocator": self.allocator.state_dict() if self.allocator else None,
            "start": self.penalty.start if self.penalty else None,
        }

    def restore(self, state: Mapping[str, Any], folder: Path) -> None:
        self._check(state, folder)
        self.epoch, self.stopped = state["epoch"], state["stopped"]
        self.step = self.epoch * (self.total_steps // self.config.epochs)
        self.best_epoch, self.history = state["best_epoch"], state["history"]
        self.best = {k: t.to(self.device) for k, t in state["best"].items()}
        self._load_weights(state["weights"])
        for name, moments in state["moments"].items():
            # The step count stays on the CPU unless the fused optimiser keeps it beside the rest.
            self.optimizer.state[self.parameters[name]] = {
                k: t.to(self.device) for k, t in moments.items()
            }
        try:
            self.generator.set_state(state["generator"])
            torch.set_rng_state(state["global_rng"])
            if state["cuda_rng"] is not None:
                torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        except RuntimeError as error:
            raise ValueError(damage(folder, f"no state of a generator: {error}")) from error
        if self.penalty:
            weight = self.config.regularization
            self.penalty = SparsityPenalty(self.model, weight, state["start"])
        if self.allocator:
            moved = {
                group: {k: t.to(self.device) for k, t in tensors.items()}
                for group, tensors in state["allocator"].items()
            }
            self.allocator.load_state_dict(moved)

    def _check(self, state: Mapping[str, Any], folder: Path) -> None:
        # The fresh run's state is the pattern of any, but for what grows while it runs.
        like = self.state()
        like["settings"] = state["settings"]

        def given(key: str, kind: type) -> Any:
            value = state.get(key)
            if key in state and not isinstance(value, kind):
                got = type(value).__name__
                raise ValueError(damage(folder, f"{key} must be {kind.__name__}, got {got}"))
            return value or kind()

        if given("best", dict):
            like["best"] = like["weights"]
        epochs = list(range(0, self.config.epochs + 1))
        recorded = []
        for record in given("history", list):
            if (
                not isinstance(record, dict)
                or not {*self._keys(), "epoch", "step"} <= record.keys()
            ):
                raise ValueError(damage(folder, "history must hold records of evaluations"))
            if not all(type(number) in (int, float) for number in record.values()):
                raise ValueError(damage(folder, "history must hold numbers"))
            recorded.append(record["epoch"])
        if recorded != sorted(set(recorded)) or recorded[:1] != [0] or recorded[-1] not in epochs:
            raise ValueError(damage(folder, f"history must begin with epoch 0, got {recorded}"))
        like["history"] = state["history"]
        chosen = state.get("best_epoch")
        if self.held_out is not None and chosen in recorded and type(chosen) is int:
            like["best_epoch"] = chosen
        if self.allocator:
            scores = {name: values > 0 for name, values in self.allocator.scores().items()}
            done = given("epoch", int) * (self.total_steps // self.config.epochs)
            final = done >= self.total_steps - self.allocator.budget.final_steps
            like["allocator"] = {**like["allocator"], "kept": scores if final else {}}
        # Buffers may hold infinities, as attention masks do.
        buffers = (f"{group}.{name}" for group in ("weights", "best") for name in self.buffers)
        check_state(folder, state, like, infinite=tuple(buffers))
        if not recorded[-1] <= state["epoch"] or state["epoch"] not in epochs[1:]:
            raise ValueError(
                damage(folder, f"epoch must be in 1 to {epochs[-1]}, got {state['epoch']}")
            )

    def _keys(self) -> list[str]:
        return self.shown + (["gap"] if self.held_out is not None else [])

    def _weights(self) -> dict[str, Tensor]:
        # Training moves the buffers, too: statistics of BatchNorm, say.
        return {**self.parameters, **self.buffers}

    def _load_weights(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in self._weights().items():
                tensor.copy_(values[name])

    def _move(self, data: Data) -> tuple[Inputs, Tensor]:
        inputs, targets = data
        return map_inputs(lambda t: t.to(self.device), inputs), targets.to(self.device)

    def _rate_at(self, step: int) -> float:
        return self.config.rate_factor(step, total_steps=self.total_steps)


def _no_moments(parameter: Tensor) -> dict[str, Tensor]:
    zeros = torch.zeros_like(parameter, requires_grad=False)
    step = torch.zeros((), device=parameter.device if parameter.is_cuda else "cpu")
    return {"step": step, "exp_avg": zeros, "exp_avg_sq": zeros.clone()}


def resolve_device(device: str | torch.device) -> torch.device:
    """The device to train on.

    Args:
        device: A device, or `auto`: a GPU if there is one.

    Returns:
        The device.
    """
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return check_device("device", device)
