"""The Trainer: the loss in three modes against its definition, resumption, the ensemble."""

import math
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from transformers import (
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    Trainer,
    TrainingArguments,
)

from lora_dropout import ensemble_predict, sample_masks, use_masks
from lora_dropout.peft import LoRADropoutMixin, LoRADropoutTrainer, attach, detach
from lora_dropout.peft.trainer import step_seeds
from lora_dropout.seeds import derived_generator
from tests.lora_dropout.peft.models import SHAPES, base_model, batch, peft_config, peft_model
from tests.lora_dropout.strategies import close

ROUTE = 2e-5  # float32, the same sum in another order
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


class Rows(Dataset):
    def __init__(self, shape: str, size: int, seed: int = 3) -> None:
        self.data = batch(shape, size, seed=seed)

    def __len__(self) -> int:
        return len(self.data["labels"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {key: value[index] for key, value in self.data.items()}


def arguments(folder: Path, **more: object) -> TrainingArguments:
    settings = {
        "output_dir": str(folder), "per_device_train_batch_size": 4, "max_steps": 2,
        "learning_rate": 0.01, "report_to": "none", "use_cpu": True, "disable_tqdm": True,
        "logging_strategy": "no", "save_strategy": "no", "seed": 7, "max_grad_norm": 0.0,
        "dataloader_pin_memory": False, **more,
    }  # fmt: skip
    return TrainingArguments(**settings)  # type: ignore[arg-type]


def trainer(folder: Path, shape: str = "bert", *, model: nn.Module | None = None, size: int = 16,
            settings: dict | None = None, **more: object) -> LoRADropoutTrainer:  # fmt: skip
    model = model or attach(peft_model(shape), n_instances=3)
    settings = settings or {}
    return LoRADropoutTrainer(
        model, arguments(folder, **more), train_dataset=Rows(shape, size), **settings
    )


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def same(a: dict[str, Tensor], b: dict[str, Tensor], tier: float = ROUTE) -> None:
    assert a.keys() == b.keys() and a
    for key in a:
        close(a[key], b[key], tier)


def reference(
    model: nn.Module, parts: list, seeds: list[Tensor], mode: str, items: int | None
) -> tuple[float, dict[str, Tensor]]:
    """Eq. 7 spelt out: one pass an instance, its own examples alone; `items` labels in all."""
    model.zero_grad()
    total = 0.0
    for part, seed in zip(parts, seeds, strict=True):
        masks = sample_masks(model, seeds=seed)
        n, size = masks.n_instances, len(part["labels"])
        block = math.ceil(size / n)
        for index in range(n):
            chosen, share = part, 1.0 / n
            if mode == "grouped":
                chosen = {k: v[index * block : (index + 1) * block] for k, v in part.items()}
                if len(chosen["labels"]) == 0:
                    continue
                share = 1.0
            weight = counted(chosen) / (items or len(parts) * counted(part))
            with use_masks(model, masks.select(index)):
                loss = model(**chosen).loss * share * weight
            loss.backward()
            total += loss.item()
    return total, gradients(model)


def counted(part: dict[str, Tensor]) -> int:
    labels = part["labels"]
    return int((labels[..., 1:] if labels.dim() > 1 else labels).ne(-100).sum())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["loop", "batched", "grouped"])
@pytest.mark.parametrize("checkpointing", [None, False, True])
def test_gradients_are_those_of_the_definition(
    tmp_path: Path, shape: str, mode: str, checkpointing: bool | None
) -> None:
    run = trainer(tmp_path, shape, settings={"mode": mode})
    part = batch(shape, 4, seed=3)
    if shape != "bert":
        part["labels"][1, 2:] = -100  # examples of unequal length
    if checkpointing is not None:
        run.model.gradient_checkpointing_enable({"use_reentrant": checkpointing})
        run.model.enable_input_require_grads()
    run.current_gradient_accumulation_steps = 1
    run.create_optimizer()
    count = run._get_num_items_in_batch([part], torch.device("cpu"))
    loss = run.training_step(run.model, part, count)
    found = gradients(run.model)
    run.model.gradient_checkpointing_disable()
    seeds = step_seeds(3, seed=7, rank=0, step=0, micro_step=0)
    items = None if count is None else int(count)
    expected, wanted = reference(run.model, [part], [seeds], mode, items)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    same(found, wanted)


@pytest.mark.parametrize("mode", ["loop", "batched"])
@pytest.mark.parametrize("shape", SHAPES)
def test_accumulated_gradients(tmp_path: Path, mode: str, shape: str) -> None:
    """BERT's classifier ignores the number of labels that transformers hands it."""
    run = trainer(tmp_path, shape, settings={"mode": mode}, gradient_accumulation_steps=2)
    parts = [batch(shape, 4, seed=s) for s in (3, 4)]
    if shape != "bert":
        parts[1]["labels"][:, 2:] = -100
    run.current_gradient_accumulation_steps = 2
    run.create_optimizer()
    count = run._get_num_items_in_batch(parts, torch.device("cpu"))
    for part in parts:
        run.training_step(run.model, dict(part), count)
    found = gradients(run.model)
    seeds = [step_seeds(3, seed=7, rank=0, step=0, micro_step=m) for m in (0, 1)]
    items = None if shape == "bert" else int(count)
    same(found, reference(run.model, parts, seeds, mode, items)[1])


@pytest.mark.parametrize("mode", ["loop", "batched", "grouped"])
def test_resume_from_a_checkpoint_goes_on_with_the_same_masks(tmp_path: Path, mode: str) -> None:
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2,
               "gradient_accumulation_steps": 2}  # fmt: skip
    whole = trainer(tmp_path / "a", settings={"mode": mode}, **options)
    whole.train()
    again = trainer(tmp_path / "b", settings={"mode": mode}, **options)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    a, b = whole.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
    other = trainer(tmp_path / "c", settings={"mode": mode}, seed=8, data_seed=7, **options)
    other.train()
    assert any(not torch.equal(a[key], t) for key, t in other.model.state_dict().items())


def test_seeds_differ_in_every_argument() -> None:
    base = {"seed": 1, "rank": 0, "step": 2, "micro_step": 3}
    drawn = [step_seeds(2, **base)]
    drawn += [step_seeds(2, **{**base, key: base[key] + 1}) for key in base]
    assert len(torch.cat(drawn).unique()) == 10
    assert torch.equal(step_seeds(3, **base)[:2], drawn[0])


def test_bf16(tmp_path: Path) -> None:
    exact, half = trainer(tmp_path), trainer(tmp_path, bf16=True)
    a, b = exact.train().training_loss, half.train().training_loss
    assert a != b
    assert a == pytest.approx(b, rel=0.05)
    assert all(p.dtype == torch.float32 for p in half.model.parameters())


# --- evaluation -------------------------------------------------------------------------------


def test_predicts_by_the_ensemble(tmp_path: Path) -> None:
    run = trainer(tmp_path, settings={"eval_instances": 5}, per_device_eval_batch_size=5)
    data = Rows("bert", 12, seed=9)
    output = run.predict(data)  # type: ignore[arg-type]
    inputs = {k: v for k, v in data.data.items() if k != "labels"}
    masks = sample_masks(run.model, n_instances=5, generator=derived_generator(7, "evaluation"))
    expected = ensemble_predict(run.model, inputs, masks=masks)
    close(torch.from_numpy(output.predictions), expected, ROUTE)
    loss = F.cross_entropy(expected, data.data["labels"]).item()
    assert output.metrics["test_loss"] == pytest.approx(loss, rel=1e-5)
    assert run.evaluate(data)["eval_loss"] == pytest.approx(loss, rel=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("inference", ["mean", "raw"])
def test_mask_free_evaluation(tmp_path: Path, inference: str) -> None:
    with pytest.warns(UserWarning, match="4 times larger"):
        model = attach(peft_model("bert"), rescale=False)
    run = trainer(tmp_path, model=model, settings={"inference": inference})
    data = Rows("bert", 6)
    found = torch.from_numpy(run.predict(data).predictions)  # type: ignore[arg-type]
    if inference == "raw":
        detach(model)
    model.eval()
    with torch.no_grad():
        close(found, model(**data.data).logits, ROUTE)


# --- refusals ---------------------------------------------------------------------------------


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model must have masks .see attach., got PeftModel"):
        trainer(tmp_path, model=peft_model("bert"))
    with pytest.raises(ValueError, match=r"mode must be one of .* got mode='all'"):
        trainer(tmp_path, settings={"mode": "all"})
    with pytest.raises(ValueError, match=r"inference must be one of .* got inference='best'"):
        trainer(tmp_path, settings={"inference": "best"})
    with pytest.raises(ValueError, match="eval_instances must be at least 1"):
        trainer(tmp_path, settings={"eval_instances": 0})
    run = trainer(tmp_path, settings={"mode": "batched"})
    part = {**batch("bert", 4), "position_ids": torch.arange(5)[None]}
    with pytest.raises(ValueError, match=r"'position_ids' of shape \(1, 5\): use mode='loop'"):
        run.training_step(run.model, part)
    assert run._copies == 1


def test_relative_embeddings_train_in_every_mode(tmp_path: Path) -> None:
    """DeBERTa's layers see positions that all rows share, besides the batch."""
    config = DebertaV2Config(
        vocab_size=19, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=12, max_position_embeddings=16, relative_attention=True,
        pos_att_type=["p2c", "c2p"], num_labels=3, share_att_key=True, initializer_range=0.3,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    settings = LoraConfig(
        r=2, task_type="SEQ_CLS", target_modules=["query_proj", "key_proj"],
        init_lora_weights=False,
    )  # fmt: skip
    part = batch("bert", 4, seed=3)
    seeds = step_seeds(3, seed=7, rank=0, step=0, micro_step=0)
    torch.manual_seed(0)
    model = get_peft_model(DebertaV2ForSequenceClassification(config), settings)
    model = attach(model, n_instances=3)
    for mode in ("loop", "batched", "grouped"):
        run = trainer(tmp_path, model=model, settings={"mode": mode})
        run.current_gradient_accumulation_steps = 1
        run.create_optimizer()
        model.zero_grad()
        loss = run.training_step(model, dict(part))
        found = gradients(model)
        expected, wanted = reference(model, [part], [seeds], mode, None)
        assert float(loss) == pytest.approx(expected, rel=1e-5)
        same(found, wanted)


class Halves(Trainer):
    """As a reward model's: the first half of a batch is chosen over the second."""

    def compute_loss(self, model, inputs, return_outputs=False, **_):  # type: ignore[no-untyped-def]
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        chosen, rejected = outputs.logits[:, 0].chunk(2)
        loss = -F.logsigmoid(chosen - rejected).mean()
        return (loss, outputs) if return_outputs else loss


class TwoPasses(Trainer):
    """Chosen and rejected texts in passes of their own, row by row."""

    def compute_loss(self, model, inputs, return_outputs=False, **_):  # type: ignore[no-untyped-def]
        chosen = model(input_ids=inputs["input_ids"])
        rejected = model(input_ids=inputs["input_ids"].flip(1))
        loss = -F.logsigmoid(chosen.logits[:, 0] - rejected.logits[:, 0]).mean()
        return (loss, chosen) if return_outputs else loss


class Contrastive(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, **_):  # type: ignore[no-untyped-def]
        outputs = model(input_ids=inputs["input_ids"])
        scores = outputs.logits @ outputs.logits.flip(1).T
        loss = F.cross_entropy(scores, torch.arange(len(scores)))
        return (loss, outputs) if return_outputs else loss


class Weighted(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, **_):  # type: ignore[no-untyped-def]
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = F.cross_entropy(outputs.logits, labels, weight=torch.tensor([9.0, 0.1, 1.0]))
        return (loss, outputs) if return_outputs else loss


@pytest.mark.parametrize("mode", ["batched", "grouped"])
@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize(
    ("base", "refused"),
    [(Halves, True), (Contrastive, True), (TwoPasses, False), (Weighted, False)],
)
def test_losses_in_which_examples_meet_train_by_loop(
    tmp_path: Path, mode: str, fresh: bool, base: type, refused: bool
) -> None:
    kind = type("Kind", (LoRADropoutMixin, base), {})
    plain = get_peft_model(base_model("bert"), peft_config("bert")) if fresh else peft_model("bert")
    model = attach(plain, n_instances=3)
    before = {name: p.clone() for name, p in model.named_parameters()}
    run = kind(model, arguments(tmp_path), train_dataset=Rows("bert", 8), mode=mode)
    run.current_gradient_accumulation_steps = 1
    run.create_optimizer()
    if refused:
        with pytest.raises(ValueError, match=rf"must be 'loop' for this loss, got mode='{mode}'"):
            run.training_step(model, batch("bert", 4))
    else:
        assert run.training_step(model, batch("bert", 4)).isfinite()
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    loop = kind(model, arguments(tmp_path), train_dataset=Rows("bert", 8))
    loop.current_gradient_accumulation_steps = 1
    loop.create_optimizer()
    assert loop.training_step(model, batch("bert", 4)).isfinite()


class Late(Halves):
    """Its pairs count from the third step on."""

    def compute_loss(self, model, inputs, return_outputs=False, **_):  # type: ignore[no-untyped-def]
        if self.state.global_step > 1:
            return super().compute_loss(model, inputs, return_outputs)
        return Trainer.compute_loss(self, model, inputs, return_outputs)


@pytest.mark.parametrize("mode", ["batched", "grouped"])
def test_a_loss_that_changes_is_looked_at_again(tmp_path: Path, mode: str) -> None:
    kind = type("Kind", (LoRADropoutMixin, Late), {})
    model = attach(peft_model("bert"), n_instances=2)
    run = kind(model, arguments(tmp_path, max_steps=4), train_dataset=Rows("bert", 16), mode=mode)
    with pytest.raises(ValueError, match="must be 'loop' for this loss"):
        run.train()
    assert run.state.global_step == 2


def test_a_packed_row_has_one_mask(tmp_path: Path) -> None:
    run = trainer(tmp_path, "llama", settings={"mode": "grouped"})
    part = {**batch("llama", 1), "position_ids": torch.tensor([[0, 1, 0, 1, 2]])}
    with pytest.raises(ValueError, match=r"batch of one row, .* its examples packed into it"):
        run.training_step(run.model, part)
    run = trainer(tmp_path, settings={"mode": "grouped"}, per_device_train_batch_size=1)
    with pytest.raises(ValueError, match="got mode='grouped' and batches of one"):
        run.training_step(run.model, batch("bert", 1))


def test_goes_before_any_trainer(tmp_path: Path) -> None:
    class Scaled(Trainer):
        def compute_loss(self, *args: object, **kwargs: object) -> Tensor:
            return 3.0 * super().compute_loss(*args, **kwargs)  # type: ignore[arg-type]

    class Mixed(LoRADropoutMixin, Scaled):
        pass

    losses = []
    for kind in (LoRADropoutTrainer, Mixed):
        model = attach(peft_model("bert"), n_instances=3)
        run = kind(model, arguments(tmp_path), train_dataset=Rows("bert", 8))
        run.current_gradient_accumulation_steps = 1
        run.create_optimizer()
        losses.append(float(run.training_step(model, batch("bert", 4))))
    assert losses[1] == pytest.approx(3 * losses[0], rel=1e-5)
