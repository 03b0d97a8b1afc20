"""Real data and weights that are not part of the repository.

`LORA_DROPOUT_TEST_FILES` names a folder with `data/glue/<task>/*.tsv` and
`models/all-MiniLM-L6-v2-fp16`; without it, a folder `shared` beside the checkout is looked at.
Tests that need one of them skip, with the reason, where it is not.
"""

import os
from pathlib import Path

import pytest

VARIABLE = "LORA_DROPOUT_TEST_FILES"
GLUE_DATA = "data/glue"
ENCODER = "models/all-MiniLM-L6-v2-fp16"
BESIDE = Path(__file__).resolve().parents[2] / "shared"


def local_files(name: str) -> Path:
    """Find a folder, or skip the test.

    Args:
        name: Relative to the folder of the variable: `GLUE_DATA` or `ENCODER`.

    Returns:
        The folder.
    """
    root = Path(os.environ.get(VARIABLE) or BESIDE)
    folder = root / name
    if not folder.is_dir():
        pytest.skip(f"needs {name}, which is not in {root}; {VARIABLE} may name another folder")
    return folder
