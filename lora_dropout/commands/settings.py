"""What can be set, with defaults; checked when made, before anything heavy is imported."""

from dataclasses import dataclass
from pathlib import Path

from lora_bounds.bounds.laws import MASK_LAWS
from lora_dropout.commands import paths
from lora_dropout.commands.options import flag_of, option
from lora_dropout.door import check_choice, check_count, check_positive, check_probability
from lora_dropout.seeds import TORCH_BITS, check_seed
from lora_dropout.tasks.catalogue import TASK_NAMES

_INFERENCE = ("ensemble", "mean", "raw")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What `train` and `compare` share: base model, data, adapter, training.

    One default for both, so that what was compared is what gets trained.
    """

    model: str = option(help="base model: name on the hub, or folder")
    task: str = option(help="one of " + ", ".join(TASK_NAMES), choices=TASK_NAMES)
    output: Path = option(help="folder for everything that is written")
    data: Path | None = option(None, help="local data instead of the hub's")
    revision: str | None = option(None, help="revision of the base model on the hub")
    trust_remote_code: bool = option(False, help="run code that the model's repository brings")
    max_length: int | None = option(None, help="tokens an example; the task's usual unless given")
    n_train: int | None = option(None, help="train on so many examples, drawn by the seed")
    keep_overlap: bool = option(False, help="keep training examples that the dev set has too")
    adapter: str = option("lora", help="kind of adapter", choices=("lora", "adalora"))
    rank: int = option(8, help="rank r")
    alpha: float = option(16.0, help="the update is scaled by alpha / rank")
    target_modules: tuple[str, ...] = option(("all-linear",), help="layers to adapt")
    modules_to_save: tuple[str, ...] = option(
        (), help="modules to train whole; the head, and what the model's files lack, unless given"
    )
    mask: str = option("row_column", help="mask law", choices=MASK_LAWS)
    rescale: bool = option(
        True,
        help="divide the masked update by its mask's mean in training; off is the paper's Eq. 3. "
        "What is saved computes the mean network in plain PEFT either way",
    )
    instances: int = option(4, help="mask draws N of the training loss (Eq. 7)")
    mode: str = option(
        "loop",
        help="N-instance loss: N passes (any model), one pass over N copies (more memory), or one "
        "pass over the batch dealt out among the masks (the cost of one)",
        choices=("loop", "batched", "grouped"),
    )
    eval_instances: int = option(8, help="members of the ensemble (Eq. 8)")
    epochs: float = option(3.0, help="passes over the training data")
    batch_size: int = option(16, help="examples a step (and process)")
    eval_batch_size: int = option(64, help="examples a forward pass in evaluation")
    warmup: float = option(0.06, help="share of the steps in which the learning rate rises")
    weight_decay: float = option(0.0, help="AdamW's")
    precision: str = option("float32", help="of weights and passes", choices=("float32", "bf16"))
    gradient_checkpointing: bool = option(False, help="less memory, more time")

    def __post_init__(self) -> None:
        for name in ("rank", "instances", "eval_instances", "batch_size", "eval_batch_size"):
            check_count(flag_of(name), getattr(self, name))
        for name in ("max_length", "n_train"):
            if getattr(self, name) is not None:
                check_count(flag_of(name), getattr(self, name))
        check_positive("--alpha", self.alpha)
        check_positive("--epochs", self.epochs)
        check_positive("--weight-decay", self.weight_decay, zero_ok=True)
        if check_probability("--warmup", self.warmup) == 1.0:
            raise ValueError(f"--warmup must be below 1, got {self.warmup!r}")
        check_choice("--task", self.task, TASK_NAMES)
        if self.task == "mmlu":
            raise ValueError(
                "--task: mmlu has no training data; train on 'instructions', then "
                "`lora-dropout evaluate FOLDER --task mmlu`"
            )
        paths.check_model("--model", self.model)
        paths.check_new_folder("--output", self.output)
        if self.data is not None:
            paths.check_there("--data", self.data)

    def check_rate(self, name: str, rate: float) -> None:
        """Refuse a rate that leaves nothing to train.

        Args:
            name: The flag.
            rate: The rate.

        Raises:
            ValueError: If it is not in [0, 1).
        """
        if check_probability(name, rate) == 1.0:
            raise ValueError(f"{name} must be below 1, got {rate!r}")


@dataclass(frozen=True, kw_only=True)
class TrainSettings(RunSettings):
    """`train`."""

    dropout: float = option(0.5, help="rate p of the masks; 0 is plain LoRA")
    inference: str = option("ensemble", help="how to evaluate", choices=_INFERENCE)
    learning_rate: float = option(5e-4, help="peak rate of AdamW, falls linearly to 0")
    seed: int = option(0, help="of everything random")
    save_every: int | None = option(None, help="steps between checkpoints; each epoch unless given")
    resume: bool = option(False, help="go on from the last checkpoint in --output")
    report_to: tuple[str, ...] = option(
        ("none",), help="tensorboard, wandb, ...: any that transformers knows"
    )
    dry_run: bool = option(False, help="print what would be trained, then stop")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_rate("--dropout", self.dropout)
        check_positive("--learning-rate", self.learning_rate)
        check_seed("--seed", self.seed, maximum=TORCH_BITS)
        if self.save_every is not None:
            check_count("--save-every", self.save_every)
        if self.adapter == "adalora" and (self.resume or self.save_every is not None):
            # Its checkpoints are cut to the ranks of the moment, and lack the importance scores.
            raise ValueError(
                "--adapter: PEFT cannot resume adalora from a checkpoint; leave out --resume and "
                "--save-every"
            )


@dataclass(frozen=True, kw_only=True)
class CompareSettings(RunSettings):
    """`compare`."""

    dropout: tuple[float, ...] = option((0.5,), help="rates p of LoRA Dropout; several are tuned")
    ordinary_dropout: tuple[float, ...] = option(
        (0.1,), help="rates of PEFT's own lora_dropout; several are tuned"
    )
    learning_rates: tuple[float, ...] = option(
        (3e-4, 1e-3, 3e-3), help="tried for each method on the validation set"
    )
    seeds: int = option(5, help="runs a method: data drawn, initial factors, order, masks")
    tune_seeds: int = option(1, help="runs for each setting tried; their seeds are others")
    n_validation: int = option(300, help="training examples set aside for tuning")
    jobs: int = option(1, help="runs at a time")
    engine: str = option("local", help="where runs are computed", choices=("local", "ray"))
    gpus_per_run: float = option(0.0, help="GPUs that Ray gives each run")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("dropout", "ordinary_dropout"):
            for rate in getattr(self, name):
                self.check_rate(flag_of(name), rate)
        for rate in self.learning_rates:
            check_positive("--learning-rates", rate)
        check_count("--seeds", self.seeds, minimum=2)
        for name in ("tune_seeds", "n_validation", "jobs"):
            check_count(flag_of(name), getattr(self, name))
        if check_positive("--gpus-per-run", self.gpus_per_run, zero_ok=True) and (
            self.engine != "ray"
        ):
            raise ValueError(f"--gpus-per-run needs --engine ray, got {self.engine!r}")


@dataclass(frozen=True, kw_only=True)
class UseSettings:
    """What `evaluate` and `predict` share: how to use what `train` wrote."""

    data: Path | None = option(None, help="local data instead of the hub's")
    task: str | None = option(
        None, help="another task of the same kind, such as mmlu", choices=TASK_NAMES
    )
    base_model: str | None = option(
        None, help="base model; the one that run.json names unless given"
    )
    trust_remote_code: bool = option(False, help="run code that the model's repository brings")
    max_length: int | None = option(None, help="tokens an example; that of the training")
    inference: str | None = option(None, help="that of the training", choices=_INFERENCE)
    eval_instances: int | None = option(None, help="members of the ensemble")
    eval_batch_size: int = option(64, help="examples a forward pass")
    seed: int = option(0, help="of the ensemble's masks")

    def __post_init__(self) -> None:
        for name in ("max_length", "eval_instances"):
            if getattr(self, name) is not None:
                check_count(flag_of(name), getattr(self, name))
        check_count("--eval-batch-size", self.eval_batch_size)
        check_seed("--seed", self.seed, maximum=TORCH_BITS)
        if self.data is not None:
            paths.check_there("--data", self.data)
        if self.base_model is not None:
            paths.check_model("--base-model", self.base_model)


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(UseSettings):
    """`evaluate`."""

    split: str | None = option(None, help="split to measure on; all dev splits unless given")
    json: Path | None = option(None, help="file to write; evaluation.json in the folder")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.json is not None:
            paths.check_new_file("--json", self.json)


@dataclass(frozen=True, kw_only=True)
class PredictSettings(UseSettings):
    """`predict`."""

    input: Path = option(help="examples in the task's local format, labels not needed")
    output: Path = option(help="file to write, one JSON object a line")

    def __post_init__(self) -> None:
        super().__post_init__()
        paths.check_file("--input", self.input)
        paths.check_new_file("--output", self.output)
        if self.output.exists() and self.output.samefile(self.input):
            raise ValueError(f"--output: {self.output} is the --input: name another file")
