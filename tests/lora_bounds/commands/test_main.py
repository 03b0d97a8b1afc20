"""The command line: what it prints, writes and returns."""

import io
import json
import os
import re
import stat
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import FrameType

import pytest

from lora_bounds import __main__ as cli
from lora_bounds import claims
from lora_bounds.commands import reference
from lora_bounds.trial.claim import Claim, Outcome, Verdict

PACKAGE = Path(cli.__file__).parent
QUICK = "T5, rank masks"


def test_verify_one_claim_and_write_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "verdicts.json"
    assert cli.main(["verify", "--only", QUICK, "--json", str(path)]) == 0
    shown, progress = capsys.readouterr()
    assert "1 REFUTED" in shown
    assert "check" in progress
    record = json.loads(path.read_text())
    (claim,) = record["claims"]
    assert (claim["id"], claim["verdict"], claim["recorded"]) == (QUICK, "REFUTED", "REFUTED")
    assert claim["margin"] < 0
    assert [piece["kind"] for piece in claim["evidence"]] == ["counterexample", "proof", "sweep"]
    assert record["differences"] == []


def test_json_is_written_whole_or_not_at_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, victim = tmp_path / "verdicts.json", tmp_path.parent / "victim"
    victim.write_text("precious")
    (tmp_path / ".verdicts.json.tmp").symlink_to(victim)  # planted, under a guessable name
    path.symlink_to(victim)
    assert cli.main(["verify", "--only", QUICK, "--json", str(path)]) == 0
    earlier = path.read_bytes()
    json.loads(earlier)
    assert victim.read_text() == "precious"
    (tmp_path / ".verdicts.json.tmp").unlink()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    write = Path.write_text

    def full(target: Path, text: str) -> None:
        write(target, text[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    capsys.readouterr()
    assert cli.main(["verify", "--only", QUICK, "--json", str(path)]) == 2
    said = capsys.readouterr()
    assert f"cannot write {path}: [Errno 28] No space left" in said.err
    assert QUICK in said.out  # the table is there all the same
    assert path.read_bytes() == earlier
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_json_is_written_into_what_is_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    reader = subprocess.Popen(["cat", str(fifo)], stdout=subprocess.PIPE, text=True)
    assert cli.main(["verify", "--only", QUICK, "--json", str(fifo)]) == 0
    written, _ = reader.communicate(timeout=10)
    assert json.loads(written)["differences"] == []
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    before = os.stat("/dev/null")
    (tmp_path / "link").symlink_to("/dev/null")
    for target in ("/dev/null", str(tmp_path / "link")):
        assert cli.main(["verify", "--only", QUICK, "--json", target]) == 0
    assert os.path.samestat(os.stat("/dev/null"), before) and (tmp_path / "link").is_symlink()
    capsys.readouterr()
    assert cli.main(["verify", "--only", QUICK, "--json", "/dev/full"]) == 2
    said = capsys.readouterr()
    assert QUICK in said.out and "cannot write /dev/full: [Errno 28]" in said.err
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_standard_output_as_a_file_holds_table_and_json(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    with open(out, "w") as stream:
        code = [sys.executable, "-m", "lora_bounds.__main__", "verify", "--only", QUICK]
        done = subprocess.run([*code, "--json", "/dev/stdout"], stdout=stream, check=False)
    assert done.returncode == 0
    text = out.read_text()
    table, brace, rest = text.partition("{")
    assert QUICK in table and json.loads(brace + rest)["differences"] == []


def test_a_bad_place_is_found_before_anything_is_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*given: object, **named: object) -> None:
        raise AssertionError("computed")

    monkeypatch.setattr("lora_bounds.commands.report.run", never)
    for place, said in ((tmp_path, "is a folder"), (tmp_path / "no" / "x", "there is no folder")):
        assert cli.main(["verify", "--json", str(place)]) == 2
        assert said in capsys.readouterr().err

    class Full(io.BytesIO):
        def write(self, content: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", lambda **named: Full())
    assert cli.main(["verify", "--json", str(tmp_path / "x.json")]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def _recorded_as(verdict: Verdict) -> tuple[Claim, ...]:
    (claim,) = claims.find_claims(QUICK)
    return (replace(claim, recorded=verdict),)


def test_a_verdict_that_differs_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = _recorded_as(Verdict.PROVED)
    monkeypatch.setattr(claims, "all_claims", lambda: wrong)
    assert cli.main(["verify", "--only", QUICK]) == 1
    shown = capsys.readouterr().out
    assert f"{QUICK}: recorded PROVED, the evidence says REFUTED" in shown


class _Control:
    def __init__(self, rejected: bool, survives: bool) -> None:
        self.name, self.statement = "made up", "1 = 2"
        self._rejected, self._survives = rejected, survives

    def rejected(self) -> bool:
        return self._rejected

    def survives(self) -> bool:
        return self._survives


@pytest.mark.parametrize(
    ("rejected", "survives", "status", "line"),
    [
        (True, True, 0, "1 of 1 false claims rejected, 1 of 1 true twins survive"),
        (False, True, 1, "made up: a false claim was not rejected"),
        (True, False, 1, "made up: its true twin was rejected"),
    ],
)
def test_a_control_that_goes_wrong_fails(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rejected: bool,
    survives: bool,
    status: int,
    line: str,
) -> None:
    few = _recorded_as(Verdict.REFUTED)
    monkeypatch.setattr(claims, "all_claims", lambda: few)
    monkeypatch.setattr(claims, "all_controls", lambda: (_Control(rejected, survives),))
    assert cli.main(["verify"]) == status
    assert line in capsys.readouterr().out


def test_show_prints_one_claim(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "thm 4.5"]) == 0
    shown = capsys.readouterr().out
    words = " ".join(shown.split())  # lines break where the terminal ends
    for part in (
        "Thm 4.5  (Thm 4.5)",
        "E loss(E_theta M(x; theta), y) <=",
        "verdict     PROVED",
        "lora_bounds.bounds.ensemble_risk.squared_losses",
        "tests/lora_bounds/bounds/test_ensemble_risk.py::test_squared_losses",
        "convex in the final activation",
        "page        lora_bounds/claims/ensemble/thm_4_5.py",
        "proof jensen proves",
        "in lora_bounds/claims/ensemble/thm_4_5.py::prove_jensen",
        "controls    ensemble order reversed: the mean member is no worse than the ensemble",
        "error probability",
    ):
        assert " ".join(part.split()) in words
    assert max(map(len, shown.splitlines())) <= 120


def test_a_page_names_its_theorem_and_the_tests_that_are_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (claim,) = claims.find_claims(QUICK)
    outcome = Outcome(Verdict.REFUTED, None, 0, None, 0.0, (), ())
    bare = replace(claim, evidence=())
    assert "theorem" not in reference.page(bare, outcome)
    formal = reference.page(replace(bare, theorem="rank_masks_add"), outcome)
    assert "theorem     rank_masks_add" in formal
    assert "tested in   tests/lora_bounds/claims/" in formal
    monkeypatch.setattr(reference, "ROOT", tmp_path)  # as in an installed package
    assert reference.marked_tests.__wrapped__() == {}


def test_show_without_an_id_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(claims.all_claims())


def test_an_unknown_id_is_a_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "Thm 4.6"]) == 2
    shown, error = capsys.readouterr()
    assert shown == ""
    assert error.startswith("lora-bounds: no claim 'Thm 4.6'; did you mean")
    assert "'Thm 4.5'" in error


def test_bound_compares_and_names_what_is_vacuous(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (
        "bound --n 50 --dropout 0.5 --empirical-risk 0.1 --squared-norm 20 --width 0.3 "
        "--regularized-lipschitz 1"
    )
    assert cli.main(arguments.split()) == 0
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if line.startswith("Thm 4.4 as printed"))
    assert "VACUOUS" in row
    assert "PAC-Bayes dropout" in shown
    assert "vacuous (at least C = 1): Thm 4.4 as printed" in shown
    assert "curvature along the segment" in shown


def test_bound_says_when_nothing_is_vacuous(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bound", "--n", "1e8", "--dropout", "0.5"]) == 0
    assert "none is vacuous" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bound", "--n", "0", "--dropout", "0.5"], "n must be in"),
        (["bound", "--n", "10", "--dropout", "1.5"], "dropout must be in .* got dropout=1.5"),
        (["bound", "--n", "10", "--dropout", "0.5", "--width", "1"], "squared_norm and width"),
        (["verify", "--only", QUICK, "--json", "/no/such/folder/x"], "there is no folder"),
    ],
)
def test_mistakes_are_named(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.main(arguments) == 2
    assert re.search(message, capsys.readouterr().err)


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for word in ("verify", "show", "bound", "equations", "examples:", "HOLDS UNDER", "margin"):
        assert word in shown


def test_equations_prints_the_map(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["equations"]) == 0
    assert capsys.readouterr().out.startswith("# Equations")


def test_ctrl_c_is_polite(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(claims, "find_claims", interrupted)
    assert cli.main(["show", "Thm 4.4"]) == 130
    assert capsys.readouterr().err == "lora-bounds: interrupted\n"


def test_a_reader_that_leaves_is_no_error() -> None:
    command = [sys.executable, "-u", "-m", "lora_bounds.__main__", "show"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        error = process.stderr.read()
        assert process.wait() == 141
    assert error == b""


def test_the_light_commands_load_neither_torch_nor_provers() -> None:
    code = (
        "import sys; from lora_bounds import __main__ as cli; cli.main(['show'])\n"
        "heavy = {'torch', 'z3', 'sympy', 'flint', 'hypothesis'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_is_checked_twice_on_the_way_to_a_comparison(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The package's own functions run fewer than 700 times, imports not counted."""
    arguments = ["bound", "--n", "3668", "--dropout", "0.5"]
    assert cli.main(arguments) == 0
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
            calls[frame.f_code.co_name] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        assert cli.main(arguments) == 0
    finally:
        sys.setprofile(before)
    assert capsys.readouterr().out
    assert 100 < calls.total() < 700, calls.most_common(5)
    assert calls["admit"] == 1  # the door of compare_bounds, and no other
