"""The text tasks by name; nothing is imported before it is needed."""

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lora_dropout.tasks.text import TextTask

GLUE_NAMES = ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb")
SQUAD_NAMES = ("squad", "squad_v2")
TASK_NAMES = (*GLUE_NAMES, *SQUAD_NAMES, "instructions", "mmlu")


def find_task(name: str) -> "TextTask":
    """Look a task up.

    Args:
        name: One of `TASK_NAMES`.

    Returns:
        The task.

    Raises:
        TypeError: If it is no text.
        ValueError: If there is none of this name.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be the name of a task, got {type(name).__name__}")
    if name not in TASK_NAMES:
        close = get_close_matches(name, TASK_NAMES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"name must be one of {', '.join(TASK_NAMES)}, got task={name[:80]!r}{hint}"
        )
    if name in GLUE_NAMES:
        from lora_dropout.tasks.glue import GLUE

        return GLUE[name]
    if name in SQUAD_NAMES:
        from lora_dropout.tasks.squad import SQUAD

        return SQUAD[name]
    if name == "mmlu":
        from lora_dropout.tasks.mmlu import MmluTask

        return MmluTask()
    from lora_dropout.tasks.instructions import InstructionTask

    return InstructionTask()
