"""Base models, adapters and masks, as the command puts them together."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import AdaLoraConfig, AdaLoraModel, LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.lora.layer import LoraLayer
from peft.utils import ModulesToSaveWrapper
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from lora_dropout.adapters.folder import WEIGHTS
from lora_dropout.commands.loading.trust import (
    check_adapter,
    check_base,
    check_code,
    check_repository,
)
from lora_dropout.commands.loading.whole_modules import (
    check_shapes,
    drawn_modules,
    linear_layers,
    whole_modules,
)
from lora_dropout.masks.config import MaskConfig
from lora_dropout.peft import attach, attached_config, detach
from lora_dropout.tasks.data_warning import DataWarning
from lora_dropout.tasks.text import TextTask

_HEADS: dict[str, tuple[Any, TaskType]] = {
    "classification": (AutoModelForSequenceClassification, TaskType.SEQ_CLS),
    "regression": (AutoModelForSequenceClassification, TaskType.SEQ_CLS),
    "spans": (AutoModelForQuestionAnswering, TaskType.QUESTION_ANS),
    "causal": (AutoModelForCausalLM, TaskType.CAUSAL_LM),
}
_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
_REMOTE_CODE = "it brings code of its own, which runs only with --trust-remote-code. "


@dataclass(frozen=True)
class Found:
    """A base model before its weights are read.

    Attributes:
        name: On the hub, or a folder.
        config: Its settings, with the head a task needs.
        tokenizer: Its tokenizer.
        order: Class names in the order of the model's outputs.
        common: Arguments of `from_pretrained`; on the hub the revision is a commit, where known.
    """

    name: str
    config: Any
    tokenizer: Any
    order: tuple[str, ...]
    common: dict[str, Any]


@dataclass(frozen=True)
class Base:
    """A base model with the head of a task.

    Attributes:
        model: The model.
        drawn: Names of the modules that its files hold no weights for, drawn from the seed.
    """

    model: nn.Module
    drawn: tuple[str, ...] = ()


def find_base(
    name: str,
    task: TextTask,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    flag: str = "--model",
) -> Found:
    """Find a base model: its settings, with the head a task needs, and its tokenizer.

    Args:
        name: On the hub, or a folder, for which the hub is never asked.
        task: The task.
        revision: On the hub.
        trust_remote_code: Whether code in the repository may run.
        flag: That names it, for messages.

    Returns:
        The model, before its weights are read.

    Raises:
        OSError: If it cannot be had.
    """
    local = Path(name).is_dir()
    common: dict[str, Any] = {
        "revision": revision,
        "trust_remote_code": trust_remote_code,
        "local_files_only": local,
    }
    with _told(flag, name, trust_remote_code):
        if local:
            check_base(Path(name))
        config = AutoConfig.from_pretrained(name, **common)
        if not local:
            common["revision"] = getattr(config, "_commit_hash", None) or revision
            check_repository(name, common["revision"])
        if not trust_remote_code:
            check_code(config)
        order = class_order(config, task.labels) if task.head == "classification" else ()
        if task.head == "classification":
            config.num_labels = len(order)
            config.id2label = dict(enumerate(order))
            config.label2id = {label: i for i, label in enumerate(order)}
            config.problem_type = "single_label_classification"
        elif task.head == "regression":
            config.num_labels, config.problem_type = 1, "regression"
        tokenizer = AutoTokenizer.from_pretrained(name, **common)
        if tokenizer.pad_token is None:  # GPT-2's and Llama's kind
            tokenizer.pad_token = tokenizer.eos_token
        config.pad_token_id = tokenizer.pad_token_id
    return Found(name, config, tokenizer, order, common)


def load_base(
    found: Found,
    task: TextTask,
    *,
    seed: int = 0,
    precision: str = "float32",
    empty: bool = False,
    flag: str = "--model",
) -> Base:
    """Load the weights of a base model, from safetensors files only.

    Args:
        found: The model.
        task: The task.
        seed: Of the weights that the files do not hold, as those of a new head.
        precision: `float32`, or `bf16` for base weights in bfloat16.
        empty: Make the model without weights, on the meta device.
        flag: That names it, for messages.

    Returns:
        The model; of one made without weights it is not known which ones its files lack.

    Raises:
        OSError: If it cannot be loaded, or its weights do not fit its settings.
    """
    auto, _ = _HEADS[task.head]
    with _told(flag, found.name, found.common["trust_remote_code"]):
        if empty:
            with torch.device("meta"):
                return Base(auto.from_config(found.config, dtype=_DTYPES[precision]))
        torch.manual_seed(seed)
        model, info = auto.from_pretrained(
            found.name,
            config=found.config,
            dtype=_DTYPES[precision],
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # a head of another task gives way to a new one
            output_loading_info=True,
            **found.common,
        )
        check_shapes(model, info)
    return Base(model, drawn_modules(info))


def plain_arguments(found: Found, task: TextTask, precision: str) -> dict[str, Any]:
    """How plain transformers loads the network that an adapter was trained on.

    Args:
        found: The base model.
        task: The task.
        precision: Of the base weights.

    Returns:
        `class`, the name of the class, and `arguments` of its `from_pretrained` besides the name.
    """
    auto, _ = _HEADS[task.head]
    arguments = {"pad_token_id": found.config.pad_token_id}
    if task.head in ("classification", "regression"):
        arguments |= {"num_labels": found.config.num_labels, "ignore_mismatched_sizes": True}
    arguments["dtype"] = str(_DTYPES[precision]).removeprefix("torch.")
    if found.common["revision"] is not None:
        arguments["revision"] = found.common["revision"]
    return {"class": auto.__name__, "arguments": arguments}


@contextmanager
def _told(flag: str, name: str, trusted: bool) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        hint = "" if trusted or "trust_remote_code" not in str(error) else _REMOTE_CODE
        where = "" if Path(name).is_dir() else " from the hub, there is no such folder"
        raise OSError(f"{flag}: {name!r} could not be loaded{where}: {hint}{error}") from error


def class_order(config: Any, labels: Sequence[str]) -> tuple[str, ...]:
    """The order of a model's classes: its own, if it names the task's classes.

    Args:
        config: The model's.
        labels: The task's classes.

    Returns:
        The classes.
    """
    named = {int(i): str(name).lower() for i, name in (config.id2label or {}).items()}
    if sorted(named.values()) == sorted(labels):
        return tuple(named[i] for i in range(len(named)))
    return tuple(labels)


def length_limit(found: Found) -> int | None:
    """The greatest number of tokens a model takes.

    Args:
        found: The model.

    Returns:
        The number, or None if neither says one.
    """
    stated = [
        getattr(found.config, "max_position_embeddings", None),
        found.tokenizer.model_max_length,
    ]
    known = [n for n in stated if isinstance(n, int) and 0 < n < 10**9]
    return min(known) if known else None


def choose_length(wanted: int | None, task: TextTask, found: Found) -> int:
    """The number of tokens to encode with.

    Args:
        wanted: From the flag.
        task: Its usual number stands in.
        found: The base model.

    Returns:
        The number.

    Raises:
        ValueError: If more are wanted than the model takes.
    """
    limit = length_limit(found)
    if wanted is not None and limit is not None and wanted > limit:
        raise ValueError(f"--max-length must be at most {limit} for this model, got {wanted}")
    return wanted or min(task.max_length, limit or task.max_length)


def add_adapter(
    base: Base,
    task: TextTask,
    *,
    adapter: str,
    rank: int,
    alpha: float,
    target_modules: Sequence[str],
    modules_to_save: Sequence[str] = (),
    total_steps: int = 1,
    lora_dropout: float = 0.0,
    seed: int = 0,
) -> Any:
    """Put a PEFT adapter on a model; all else but `whole_modules` is frozen.

    Args:
        base: The model; its head, and what its files lack, is trained whole and saved with the
            adapter.
        task: The task.
        adapter: `lora` or `adalora`.
        rank: Rank r; AdaLoRA prunes from 3r/2 to r on average, as in its paper.
        alpha: Scale.
        target_modules: Names, or `all-linear`.
        modules_to_save: What to train whole instead of the head and what the files lack.
        total_steps: Of the training; AdaLoRA's schedule needs them.
        lora_dropout: PEFT's own dropout.
        seed: Of the initial factors.

    Returns:
        The PEFT model; what is trained is in float32.

    Raises:
        ValueError: If no layer matches, or a module would be neither trained nor saved.
    """
    whole = whole_modules(base.model, task.head, base.drawn, modules_to_save)
    targets = list(target_modules)
    if "all-linear" in targets:
        targets = linear_layers(base.model, whole)
    common: dict[str, Any] = {
        "lora_alpha": alpha,
        "lora_dropout": lora_dropout,
        "target_modules": targets,
        "modules_to_save": list(whole) or None,
        "task_type": _HEADS[task.head][1],
    }
    if adapter == "adalora":
        # A tenth of the steps before pruning, three tenths after it, as the paper's GLUE runs.
        config: Any = AdaLoraConfig(
            init_r=max(rank + 1, 3 * rank // 2),
            target_r=rank,
            tinit=total_steps // 10,
            tfinal=3 * total_steps // 10,
            deltaT=max(1, total_steps // 100),
            total_step=total_steps,
            **common,
        )
    else:
        config = LoraConfig(r=rank, **common)
    torch.manual_seed(seed)
    try:
        with _quiet():
            adapted = get_peft_model(base.model, config)
    except ValueError as error:
        name = "all-linear does not suit this model, name layers: " * (
            "all-linear" in target_modules
        )
        raise ValueError(f"--target-modules: {name}{error}") from error
    config.modules_to_save = sorted(set(config.modules_to_save or ())) or None  # PEFT adds its own
    if getattr(
        config, "target_parameters", None
    ):  # PEFT's translation of the names of single experts
        raise ValueError(
            f"--target-modules: {' '.join(target_modules)} names experts, which this model holds "
            f"as bare parameters ({', '.join(sorted(config.target_parameters))}) that no mask "
            "fits: leave them out; all-linear does"
        )
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def put_masks(model: nn.Module, masks: MaskConfig, *, n_instances: int) -> nn.Module:
    """Attach the masks without the advice on saving, which `save_folded` follows.

    Args:
        model: A PEFT model.
        masks: Their settings.
        n_instances: N of the training.

    Returns:
        The same model.
    """
    with _quiet():
        return attach(
            model,
            dropout=masks.dropout,
            mask=masks.mask,
            n_instances=n_instances,
            rescale=masks.rescale,
            inference=masks.inference,
        )


def saved_modules(model: nn.Module) -> list[str]:
    """The modules that are trained whole and saved with an adapter.

    Args:
        model: A PEFT model.

    Returns:
        Their names in the base model.
    """
    return [
        name.removeprefix("base_model.model.")
        for name, module in model.named_modules()
        if isinstance(module, ModulesToSaveWrapper)
    ]


def save_folded(model: Any, folder: Path) -> None:
    """Save an adapter so that plain PEFT computes the mean network from it.

    Args:
        model: A PEFT model with masks; it is left as it is, to the last bit.
        folder: Gets PEFT's files.
    """
    config = attached_config(model)
    kept = {name: p.detach().clone() for name, p in model.named_parameters() if ".lora_B." in name}
    detach(model, fold=True)
    if isinstance(model.base_model, AdaLoraModel):
        # Pruned triplets stay as zeros: cut to their ranks, PEFT loads them at another scale.
        model.peft_config["default"].rank_pattern = None
    model.save_pretrained(str(folder))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in kept:
                parameter.copy_(kept[name])
    put_masks(model, config, n_instances=config.n_instances)


def load_trained(
    base: Base, folder: Path, masks: MaskConfig | None, *, n_instances: int
) -> nn.Module:
    """Load what `train` saved, masks attached as they were in training.

    Saved factors are folded: plain PEFT computes the mean network from them. Here they are
    unfolded again, so that all three ways to predict are those of the end of training.

    Args:
        base: The base model; what its files lack should be in the adapter, and a warning says if
            it is not, as in one of an older version.
        folder: The adapter's.
        masks: Their settings; None attaches none.
        n_instances: N.

    Returns:
        The model, in eval mode.

    Raises:
        ValueError: If the folder holds no adapter of the kind that `train` saves, or a damaged one.
    """
    check_adapter(folder)
    try:
        with _quiet():
            model = PeftModel.from_pretrained(base.model, str(folder))
    except SafetensorError as error:
        raise ValueError(
            f"{folder / WEIGHTS} is damaged or no safetensors file: {error}"
        ) from error
    saved = saved_modules(model)
    lost = [n for n in base.drawn if not any(f"{n}.".startswith(f"{outer}.") for outer in saved)]
    if lost:
        warnings.warn(
            f"neither {folder} nor the base model's files hold weights for {', '.join(lost)}: they "
            "are drawn again from the run's seed, and plain PEFT draws others",
            DataWarning,
            stacklevel=2,
        )
    if masks is not None:
        with torch.no_grad():
            for layer in model.modules():
                if isinstance(layer, LoraLayer) and masks.mean_factor != 1.0:
                    factors = layer.lora_B["default"]
                    getattr(factors, "weight", factors).div_(masks.mean_factor)
        put_masks(model, masks, n_instances=n_instances)
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    # Advice that the command follows by itself: on saving, and on GPT-2's transposed layers.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="with rescale=False", category=UserWarning)
        # Of names of experts, which are refused.
        warnings.filterwarnings("ignore", message="The following (rank|alpha)_pattern keys")
        # AdaLoRA's checkpoints, where a layer has lost its whole rank.
        warnings.filterwarnings("ignore", message="Adapter .* have invalid shape")
        warnings.filterwarnings("ignore", message="fan_in_fan_out", category=UserWarning)
        yield


def trainable_report(model: nn.Module) -> dict[str, Any]:
    """What would be trained.

    Args:
        model: A PEFT model.

    Returns:
        `layers` (name -> trainable numbers in it), `trainable`, `total`, `share`, and bytes of
        `weights`, `gradients`, `optimizer` (AdamW's two moments).
    """
    layers: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            short = name.removeprefix("base_model.model.").split(".lora_")[0]
            short = short.split(".modules_to_save")[0]
            layers[short] = layers.get(short, 0) + parameter.numel()
    trained = [p for p in model.parameters() if p.requires_grad]
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in trained)
    return {
        "layers": layers,
        "trainable": trainable,
        "total": total,
        "share": trainable / total,
        "weights": sum(p.numel() * p.element_size() for p in model.parameters()),
        "gradients": 4 * trainable,
        "optimizer": 8 * trainable,
    }


def activation_bytes(
    config: Any, *, rows: int, tokens: int, checkpointing: bool, precision: str
) -> int | None:
    """Activations kept for the backward pass of a standard transformer.

    Korthikanti et al. 2022 (arXiv 2205.05198), Eqs. 1 and 7: s b h (34 + 5 a s / h) bytes a layer
    in half precision, 2 s b h with recomputation. In float32 twice that, roughly an upper bound.

    Args:
        config: The model's.
        rows: Examples in a pass, copies for each instance included.
        tokens: Tokens an example.
        checkpointing: Whether activations are recomputed.
        precision: `float32` or `bf16`.

    Returns:
        Bytes, or None if the model is not described in these terms.
    """
    sizes = [getattr(config, k, None) for k in ("hidden_size", "num_attention_heads")]
    layers = getattr(config, "num_hidden_layers", None)
    if not all(isinstance(size, int) and size > 0 for size in (*sizes, layers)):
        return None
    h, a = sizes
    assert isinstance(h, int) and isinstance(a, int) and isinstance(layers, int)
    each = tokens * rows * h * (2.0 if checkpointing else 34 + 5 * a * tokens / h)
    return int(layers * each * (1 if precision == "bf16" else 2))
