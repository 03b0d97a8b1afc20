"""The command `lora-dropout`: train, evaluate, predict, compare."""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from lora_dropout.commands import evaluation, predict, train
from lora_dropout.commands.comparison import command as compare
from lora_dropout.commands.quiet import ignore_library_warnings
from lora_dropout.tasks.data_warning import DataWarning

_COMMANDS = {"train": train, "evaluate": evaluation, "predict": predict, "compare": compare}
_EXAMPLES = """examples:
  lora-dropout train --model microsoft/deberta-v3-base --task mrpc --output runs/mrpc
  lora-dropout train --config mrpc.yaml --dry-run
  lora-dropout evaluate runs/mrpc --inference mean
  lora-dropout predict runs/mrpc --input pairs.tsv --output answers.jsonl
  lora-dropout compare --model bert-base-uncased --task sst2 --n-train 500 --output runs/compare

`lora-dropout COMMAND --help` says what can be set; any of it may come from a YAML file (--config).
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lora-dropout",
        description="LoRA Dropout (arXiv 2404.09610) for Hugging Face models.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in _COMMANDS.values():
        module.add_parser(commands)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    with warnings.catch_warnings():
        show, seen = warnings.showwarning, set[str]()

        def brief(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
            if not issubclass(category, DataWarning):
                show(message, category, *rest, **more)
            elif str(message) not in seen:  # "once" forgets when libraries touch the filters
                seen.add(str(message))
                print(f"lora-dropout: {message}", file=sys.stderr)

        warnings.showwarning = brief
        warnings.simplefilter("always", DataWarning)
        ignore_library_warnings()
        return _COMMANDS[arguments.command].run(arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; those of the process unless given.

    Returns:
        The exit status: 0 if all is well, 1 if runs of a comparison failed or `--replay` found a
        difference, 2 for a mistake in arguments or data, 130 after Ctrl-C, 141 if the reader of the
        output has gone.
    """
    arguments = _parser().parse_args(argv)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # read when it is imported
    try:
        status = _run(arguments)
        sys.stdout.flush()  # a reader that has gone shows here, not at exit
    except BrokenPipeError:
        # Python flushes once more at exit; give it somewhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print(
            "lora-dropout: interrupted; the same command goes on (train: add --resume)",
            file=sys.stderr,
        )
        return 130
    except (ValueError, ImportError, OSError) as error:
        print(f"lora-dropout: {error}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
