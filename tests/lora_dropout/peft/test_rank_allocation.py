"""AdaLoRA's ranks fall to their budget under `LoRADropoutTrainer`, each gradient counted once."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from lora_dropout import FitConfig, fit
from lora_dropout.peft import LoRADropoutTrainer, attach, detach
from lora_dropout.peft.rank_allocation import allocate_ranks
from tests.lora_dropout.peft.models import base_model, batch

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning",
    "ignore::DeprecationWarning",
    "ignore:Adapter .* have invalid shape",  # PEFT, where a layer has lost its whole rank
    "ignore:The following rank_pattern keys",  # PEFT, of all AdaLoRA adapters
)

SCHEDULE = {"init_r": 6, "target_r": 2, "tinit": 2, "tfinal": 4, "deltaT": 1, "total_step": 12}


def adalora(**changes: Any) -> nn.Module:
    config = AdaLoraConfig(
        target_modules=["query", "value"], task_type="SEQ_CLS", **{**SCHEDULE, **changes}
    )
    torch.manual_seed(0)
    return attach(get_peft_model(base_model("bert"), config), n_instances=2)


def rows() -> list[dict[str, Tensor]]:
    together = batch("bert")
    return [{k: v[i] for k, v in together.items()} for i in range(6)]


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    settings: dict[str, Any] = {"max_steps": 12, "per_device_train_batch_size": 3, **changes}
    settings = {"save_strategy": "no", "learning_rate": 0.02, **settings}
    return TrainingArguments(
        str(folder), use_cpu=True, report_to=[], remove_unused_columns=False, disable_tqdm=True,
        logging_strategy="no", **settings,
    )  # fmt: skip


def train(model: Any, folder: Path, callbacks: Any = None, **changes: Any) -> LoRADropoutTrainer:
    trainer = LoRADropoutTrainer(
        model, arguments(folder, **changes), train_dataset=rows(), callbacks=callbacks
    )
    trainer.train()
    return trainer


def kept(model: nn.Module) -> list[int]:
    return [int((p != 0).sum()) for n, p in model.named_parameters() if "lora_E" in n]


@pytest.mark.parametrize(
    ("schedule", "changes"),
    [
        ({}, {}),
        ({"tfinal": 0}, {}),  # the last step is the one that would finish it
        ({"tfinal": 0, "deltaT": 5}, {}),
        ({"tinit": 0, "tfinal": 0, "total_step": 1}, {"max_steps": 1}),
        ({"total_step": 8}, {}),
        ({}, {"gradient_accumulation_steps": 2}),
        ({}, {"save_strategy": "steps", "save_steps": 3}),  # PEFT shortens names as it saves
        ({}, {"max_steps": -1, "num_train_epochs": 6}),
    ],
)
def test_ranks_fall_to_their_budget(
    schedule: dict[str, Any], changes: dict[str, Any], tmp_path: Path
) -> None:
    model = adalora(**schedule)
    before = kept(model)
    train(model, tmp_path, **changes)
    assert len(before) == 4 and sum(kept(model)) == 2 * 4


def test_what_is_saved_is_what_was_trained(tmp_path: Path) -> None:
    model: Any = adalora()
    train(model, tmp_path)
    model.eval()
    inputs = {k: v for k, v in batch("bert").items() if k != "labels"}
    with torch.no_grad():
        wanted = model(**inputs).logits
        detach(model, fold=True).save_pretrained(tmp_path / "adapter")
        again: Any = PeftModel.from_pretrained(base_model("bert"), tmp_path / "adapter").eval()
        assert torch.allclose(again(**inputs).logits, wanted, atol=1e-5)


class Own(TrainerCallback):
    """What users of AdaLoRA had to write so far."""

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        kwargs["model"].base_model.update_and_allocate(state.global_step)


def importance(model: Any) -> Tensor:
    return torch.cat([t.flatten() for t in model.base_model.rankallocator.exp_avg_ipt.values()])


def test_a_callback_of_the_users_counts_no_gradient_twice(tmp_path: Path) -> None:
    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = state.global_step >= 5

    found = []
    for when in ("never", "before", "after"):
        model = adalora()
        own = [Stop(), *([Own()] if when == "before" else [])]
        trainer = LoRADropoutTrainer(
            model, arguments(tmp_path), train_dataset=rows(), callbacks=own
        )
        if when == "after":
            trainer.add_callback(Own())
        with pytest.warns(UserWarning, match=r"after 5 of 12 steps: .* fallen to target_r=2"):
            trainer.train()
        found.append(importance(model))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    other = copy.deepcopy(model)  # its own tuner is asked, not that of the first
    assert other.base_model.trainable_adapter_name == "default"
    for one in (model, other):
        one(**batch("bert")).loss.backward()
    other.base_model.update_and_allocate(5)
    assert torch.equal(importance(model), found[0])
    assert not torch.equal(importance(other), found[0])


def test_a_trainer_without_masks_can_have_it(tmp_path: Path) -> None:
    model = detach(adalora())
    trainer = Trainer(model, arguments(tmp_path), train_dataset=rows())
    allocate_ranks(trainer)
    trainer.train()
    assert sum(kept(model)) == 2 * 4


def test_a_schedule_that_ends_after_the_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"at most the number of steps, 12.*total_step=20, tfinal"):
        train(adalora(total_step=20), tmp_path)


def test_what_checkpoints_of_adalora_cannot_do(tmp_path: Path) -> None:
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps"}
    with pytest.raises(ValueError, match="load_best_model_at_end must be off with AdaLoRA"):
        LoRADropoutTrainer(adalora(), arguments(tmp_path, **best), eval_dataset=rows())
    train(adalora(), tmp_path, save_strategy="steps", save_steps=1, save_total_limit=20)
    trainer = LoRADropoutTrainer(adalora(), arguments(tmp_path), train_dataset=rows())
    with pytest.raises(ValueError, match=r"resume_from_checkpoint: .*AdaLoRA.*one of step 1"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_without_the_tuner_nothing_falls_and_it_is_said(tmp_path: Path) -> None:
    model: Any = base_model("bert")
    model.add_adapter(AdaLoraConfig(target_modules=["query"], **SCHEDULE))
    with pytest.raises(ValueError, match=r"must be what peft.get_peft_model returns.*got Bert"):
        LoRADropoutTrainer(attach(model), arguments(tmp_path))
    tokens, labels = torch.ones(2, 3, dtype=torch.long), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match=r"AdaLoRA adapter of PEFT.*LoRADropoutTrainer"):
        fit(adalora(), (tokens, labels), config=FitConfig(epochs=1), progress=False)
