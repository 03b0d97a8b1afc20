"""The command `lora-bounds`: verify the claims, show one claim, compare the bounds."""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lora_bounds import claims
from lora_bounds.commands import reference, report
from lora_bounds.files import atomic_path, check_target

_EXAMPLES = """examples:
  lora-bounds verify                          every claim and negative control, about a minute
  lora-bounds verify --only "Thm 4.5" --json verdicts.json
  lora-bounds show                            the list of claims, without running anything
  lora-bounds show "Thm 4.4"                  one claim: formula, assumptions, code, evidence
  lora-bounds bound --n 3668 --dropout 0.5    all bounds on one problem, side by side
  lora-bounds equations > EQUATIONS.md        the map from the paper to the code

Verdicts are derived from evidence that runs: PROVED (by sympy or z3, for all values), HOLDS
(numerically, over the stated range), HOLDS UNDER (an extra assumption, named), REFUTED (by a
counterexample or a proof of the contrary). A positive margin is what is left of the claimed
inequality; a negative one says by how much it fails.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lora-bounds",
        description="The theory of LoRA Dropout (arXiv 2404.09610 v1) on trial.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    verify = commands.add_parser(
        "verify",
        help="run all evidence and compare with the recorded verdicts",
        description="Run the evidence of every claim, and the negative controls. "
        "Exit status 1 if a verdict differs from the record or a control is not rejected.",
    )
    verify.add_argument("--json", type=Path, metavar="PATH", help="write everything found as JSON")
    verify.add_argument(
        "--only",
        action="append",
        metavar="ID",
        help="verify this claim only, without the controls (may be repeated)",
    )

    show = commands.add_parser(
        "show",
        help="one claim in full",
        description="Print what a claim's page says: formula, assumptions, code, tests, evidence, "
        "controls and verdict. "
        "A paper item such as 'Prop. 4.2' prints every claim about it; no id lists them all.",
    )
    show.add_argument("id", nargs="?", help="a claim's id or a paper item, such as 'Thm 4.4'")

    commands.add_parser(
        "equations",
        help="print EQUATIONS.md",
        description="Print the map paper item -> function -> test -> verdict as Markdown.",
    )
    from lora_bounds.commands import bound as bound_command

    bound_command.add_parser(commands)
    return parser


def _verify(only: Sequence[str] | None, path: Path | None) -> int:
    from tqdm import tqdm

    if path is not None:
        check_target("--json", path)
    chosen = claims.all_claims()
    if only:
        named = {claim.id for name in only for claim in claims.find_claims(name, chosen)}
        chosen = tuple(claim for claim in chosen if claim.id in named)
    steps = sum(len(claim.evidence) for claim in chosen)
    if not only:
        steps += len(claims.all_controls())
    with tqdm(total=steps, unit="check", file=sys.stderr, leave=False) as bar:

        def progress(line: str) -> None:
            bar.set_description_str(line[:50].ljust(50))
            bar.update()

        done = report.run(chosen, controls=not only, progress=progress)
    width = max(80, shutil.get_terminal_size((120, 24)).columns)
    print(report.table(done, width=width), flush=True)  # it is not lost if the file is
    if path is not None:
        try:
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps(done.as_json(), indent=1, allow_nan=False) + "\n")
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OSError(f"cannot write {path}: {error}") from error
    return 1 if done.differences else 0


def _show(name: str | None) -> int:
    if name is None:
        width = max(len(claim.id) for claim in claims.all_claims())
        for claim in claims.all_claims():
            print(f"{claim.id:<{width}}  {claim.recorded:<11}  {claim.statement}")
        return 0
    width = min(120, max(60, shutil.get_terminal_size((100, 24)).columns))
    for claim in claims.find_claims(name):
        related = claims.related_claims(claim)
        print(reference.page(claim, claim.verify(), related=related, width=width))
        print()
    return 0


def _dispatch(arguments: argparse.Namespace) -> int:
    if arguments.command == "verify":
        return _verify(arguments.only, arguments.json)
    if arguments.command == "show":
        return _show(arguments.id)
    if arguments.command == "equations":
        print(reference.equations(claims.all_claims()), end="")
        return 0
    from lora_bounds.commands import bound as bound_command

    return bound_command.run(arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments; those of the process unless given.

    Returns:
        The exit status: 0 if all is well, 1 if a verdict differs, 2 for a mistake in the
        arguments, 130 after Ctrl-C, 141 if the reader of the output has gone.
    """
    try:
        status = _dispatch(_parser().parse_args(argv))
        sys.stdout.flush()  # a reader that has gone shows here, not at exit
    except BrokenPipeError:
        # Python flushes once more at exit; give it somewhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("lora-bounds: interrupted", file=sys.stderr)
        return 130
    except (ValueError, ImportError, OSError) as error:
        print(f"lora-bounds: {error}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
