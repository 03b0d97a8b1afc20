"""Real data and weights that are not part of the repository: found by an environment variable.

`LORA_DROPOUT_TEST_FILES` names a folder with `data/glue/<task>/*.tsv` and
`models/all-MiniLM-L6-v2-fp16`. Tests that need one of them skip, with the reason, where it is not.
"""

import os
from pathlib import Path

import pytest

VARIABLE = "LORA_DROPOUT_TEST_FILES"
GLUE_DATA = "data/glue"
ENCODER = "models/all-MiniLM-L6-v2-fp16"


def local_files(name: str) -> Path:
    """Find a folder, or skip the test.

    Args:
        name: Relative to the folder of the variable: `GLUE_DATA` or `ENCODER`.

    Returns:
        The folder.
    """
    root = os.environ.get(VARIABLE)
    if not root:
        pytest.skip(f"needs {name}: set {VARIABLE} to a folder that holds it")
    folder = Path(root) / name
    if not folder.is_dir():
        pytest.skip(f"needs {name}: {VARIABLE} is set, but there is no {folder}")
    return folder
