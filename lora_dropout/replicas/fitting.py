"""`fit_replicas`: many runs of `fit` as one batched computation."""

import hashlib
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from lora_dropout.adapters.adapt import check_frozen, trainable_parameters
from lora_dropout.data import Data, LossFn, map_inputs
from lora_dropout.door import Count, check_sequence, checked, short
from lora_dropout.replicas.chunk import Chunk, Setting
from lora_dropout.replicas.memory import default_chunk_size
from lora_dropout.replicas.replica import Replica
from lora_dropout.replicas.requirements import check_batchable, check_config, check_loss
from lora_dropout.replicas.result import Replicas
from lora_dropout.replicas.stack import Stack
from lora_dropout.training.checkpoint import (
    check_state,
    damage,
    fingerprint,
    load_checkpoint,
    run_identity,
    save_checkpoint,
)
from lora_dropout.training.fit import resolve_device
from lora_dropout.training.fit_config import FitConfig

_SAVE_SECONDS = 10.0


@checked
def fit_replicas(
    model: nn.Module,
    train: Data,
    replicas: Sequence[Replica],
    *,
    config: FitConfig | None = None,
    loss_fn: LossFn = F.cross_entropy,
    device: str | torch.device = "auto",
    chunk_size: Count | None = None,
    checkpoint_folder: str | Path | None = None,
    progress: bool = True,
) -> Replicas:
    """Train many adapters at once, each as `fit` would: same seeds, same trajectory (to rounding).

    Replica k is trained as `fit` trains the model on `train` restricted to `examples`, with the
    replica's own seed, learning rate, dropout rate and penalty. Evaluation is left to the caller:
    `FitConfig.inference`, `eval_instances`, `evaluate_every` and `seed` go unused.

    Args:
        model: An adapted model; it is moved to `device` and otherwise stays as it is. It must
            treat examples apart from each other, and draw no random numbers of its own.
        train: (inputs, targets), shared by all; inputs is a tensor or a mapping of tensors.
        replicas: In what the runs differ.
        config: What they share; None is the default. Modes `batched` and `loop` are one here.
        loss_fn: (outputs, targets) -> scalar, the mean of the losses of the single examples (which
            is checked on the first examples). Cross-entropy with labels of -100 is no such mean.
        device: `auto` takes a GPU if there is one.
        chunk_size: Replicas trained together; it bounds memory, and changes results by rounding
            only. None: as many as a memory budget allows (see `default_chunk_size`).
        checkpoint_folder: Where finished chunks are kept, and the present one about every ten
            seconds; an interrupted call with the same arguments continues from there.
        progress: Whether to show a progress bar (on standard error).

    Returns:
        The trained replicas. One that diverges (a loss or gradient that is not finite) stops with
        the weights from before that step, is listed in `diverged` and warned about; the others
        are not affected.

    Raises:
        ValueError: If data are empty, settings cannot be had for replicas or do not fit the
            model, or a checkpoint is damaged or of another run.
    """
    config = FitConfig() if config is None else config
    check_sequence("replicas", replicas, Replica)
    check_config(config)
    inputs, targets = train
    check_batchable(model)
    check_frozen(model)
    where = resolve_device(device)
    stack = Stack(model.to(where))
    inputs, targets = map_inputs(lambda t: t.to(where), inputs), targets.to(where)
    check_loss(stack, inputs, targets, loss_fn)
    settings = [_setting(r, config, stack, len(targets)) for r in replicas]
    if not settings:
        raise ValueError(f"replicas must not be empty, got replicas={short(replicas)}")
    stack.model.train()
    if chunk_size is None:
        chunk_size = default_chunk_size(stack, inputs, targets, config, loss_fn)
    groups = stack.groups([setting.dropout for setting in settings], chunk_size)
    shared: dict[str, Any] = {}
    if checkpoint_folder is not None:
        shared = {
            **attrs.asdict(config),
            "adapter": attrs.asdict(stack.config),
            "train": fingerprint(train),
            "chunk_size": chunk_size,
            **run_identity(model, trainable_parameters(model), loss_fn, where),
        }
    finished: list[dict[str, Any]] = []
    bar = tqdm(
        total=len(settings) * config.epochs, unit="replica-epoch", disable=not progress, leave=False
    )
    with bar:
        for number, group in enumerate(groups):
            chunk = Chunk(stack, inputs, targets, [settings[k] for k in group], config, loss_fn)
            folder = None
            if checkpoint_folder is not None:
                folder = Path(checkpoint_folder) / f"chunk-{number:04d}"
            own = {**shared, "replicas": _digest(chunk, [replicas[k] for k in group])}
            _train(chunk, folder, own, bar)
            finished.append(chunk.state())
    order = torch.tensor([k for group in groups for k in group]).argsort()

    def gathered(key: str) -> Tensor:
        return torch.cat([state[key].cpu() for state in finished])[order]

    steps = gathered("diverged").tolist()
    diverged = {k: step for k, step in enumerate(steps) if step}
    if diverged:
        warnings.warn(
            f"the loss or a gradient was not finite in {len(diverged)} of {len(steps)} replicas "
            f"(replica: step): {diverged}; each keeps its weights from before that step",
            RuntimeWarning,
            stacklevel=2,
        )
    return Replicas(
        parameters=stack.split(gathered("rows")),
        dropout=tuple(setting.dropout for setting in settings),
        objective=gathered("objective"),
        diverged=diverged,
    )


def _train(chunk: Chunk, folder: Path | None, settings: dict[str, Any], bar: Any) -> None:
    epochs = chunk.config.epochs
    if folder is not None:
        state = load_checkpoint(folder, settings=settings)
        if state is not None:
            check_state(folder, state, {"settings": settings, **chunk.state()}, nan=("objective",))
            done = state["epoch"]
            if not 0 < done <= epochs:
                raise ValueError(damage(folder, f"epoch must be in 1 to {epochs}, got {done}"))
            # A replica that diverged has no objective from there on, nor has an epoch to come.
            trained = state["objective"][state["diverged"].cpu() == 0, :done]
            if not trained.isfinite().all():
                raise ValueError(damage(folder, "objective must be finite where nothing diverged"))
            try:
                chunk.restore(state)
            except RuntimeError as error:
                raise ValueError(damage(folder, f"no state of a generator: {error}")) from error
    bar.update(chunk.epoch * len(chunk.rows))
    saved = time.monotonic()
    while chunk.epoch < epochs:
        chunk.train_epoch()
        bar.update(len(chunk.rows))
        due = chunk.epoch == epochs or time.monotonic() - saved > _SAVE_SECONDS
        if folder is not None and due:
            save_checkpoint(folder, {"settings": settings, **chunk.state()})
            saved = time.monotonic()


def _setting(replica: Replica, config: FitConfig, stack: Stack, n: int) -> Setting:
    examples = torch.arange(n)
    if replica.examples is not None:
        examples = torch.tensor(replica.examples)
        if int(examples.max()) >= n:
            raise ValueError(
                f"examples must be indices below {n}, the size of train, "
                f"got examples with {int(examples.max())}"
            )

    def own(value: float | None, common: float) -> float:
        return common if value is None else value

    return Setting(
        seed=replica.seed,
        examples=examples,
        learning_rate=own(replica.learning_rate, config.learning_rate),
        dropout=own(replica.dropout, stack.config.dropout),
        regularization=own(replica.regularization, config.regularization),
        init_seed=replica.init_seed,
    )


def _digest(chunk: Chunk, replicas: Sequence[Replica]) -> str:
    digest = hashlib.blake2b(repr(list(replicas)).encode(), digest_size=16)
    digest.update(chunk.start.cpu().numpy().tobytes())
    return digest.hexdigest()
