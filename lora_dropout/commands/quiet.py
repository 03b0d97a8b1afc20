"""Keeps off the terminal what a user of the command can do nothing about."""

import warnings


def ignore_library_warnings() -> None:
    """Ignore, until the filters change, that libraries call each other by names about to go."""
    libraries = r"(transformers|peft|accelerate)\."
    warnings.filterwarnings("ignore", category=FutureWarning, module=libraries)
