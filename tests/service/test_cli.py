from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from eval.cli import app as eval_app
from models.classifier import Classifier
from service.cli import app
from service.terminal import lines_for_terminal, print_answers, terminal_is_bidirectional
from training.cli import app as train_app

runner = CliRunner()
ARTICLE = "The interior minister said the killers would be tried. Hundreds of families fled the burning quarter."


def test_a_text_is_classified_as_json() -> None:
    done = runner.invoke(app, ["classify", ARTICLE, "--format", "json"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert answer["labels"]["displacement"]["decision"] == "yes"
    second = ARTICLE.index("Hundreds")
    assert ("displacement", second, len(ARTICLE)) in [(e["label"], e["start"], e["end"]) for e in answer["evidence"]]


def test_standin_input_is_read_and_shown_as_a_table() -> None:
    done = runner.invoke(app, ["classify", "-"], input="نزحت مئات العائلات من القرية بعد القصف.")
    assert done.exit_code == 0, done.output
    assert "Displacement" in done.stdout
    assert "[0:" in done.stdout


def test_lines_in_lines_out_in_order_and_broken_lines_are_answered_in_place() -> None:
    lines = [
        b'{"id": "x", "text": "They fled the village."}',
        b"not json",
        b"",
        b'{"id": 7, "text": "\\ud800"}',
        b'{"text": "\xd9\x87\xd8\xb1\xd8\xa8\xd9\x88\xd8\xa7"}',
        b'{"text": "\xff"}',
        b'{"id": 9}',
        b'{"id": null, "text": "They fled."}',
        b'{"id": "", "text": "They fled."}',
        b'{"id": 1.5, "text": "They fled."}',
        b'{"id": true, "text": "They fled."}',
        b'{"id": ["Qamishli"], "text": "They fled."}',
        b'{"id": "' + b"x" * 256 + b'", "text": "They fled."}',
        b'{"id": "' + b"x" * 257 + b'", "text": "They fled."}',
    ]
    done = runner.invoke(app, ["classify", "-", "--format", "jsonl"], input=b"\n".join(lines))
    assert done.exit_code == 0, done.output
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["id"] for answer in answers[:6]] == ["x", "2", "7", "5", "6", "7"]
    assert [answer["id"] for answer in answers[6:]] == ["8", "9", "1.5", "11", "12", "x" * 256, "14"]
    codes = [a.get("error", {}).get("code") for a in answers]
    assert codes[:6] == [None, "invalid_line", "empty_text", None, "invalid_line", "invalid_line"]
    assert codes[6:] == [None, None, None, "invalid_line", "invalid_line", None, "invalid_line"]
    assert "a string or a number" in answers[10]["error"]["detail"]
    assert "at most 256 characters, got 257" in answers[12]["error"]["detail"]


@pytest.mark.parametrize(
    ("arguments", "given", "status", "message"),
    [
        (["classify", ""], None, 2, "not answered"),
        (["classify", "-"], b"\xff\xfe", 2, "expected UTF-8 on standard input"),
        (["classify", "a", "--format", "jsonl"], None, 2, "reads standard input"),
        (["classify", "a", "--bundle", "/nowhere"], None, 1, "expected a bundle"),
        (["classify", "a", "--granularity", "word"], None, 2, "Invalid value"),
    ],
)
def test_faults_are_told_with_their_exit_codes(arguments: list[str], given: bytes | None, status: int, message: str) -> None:
    done = runner.invoke(app, arguments, input=given)
    assert done.exit_code == status
    assert message in " ".join(done.output.split())


def test_a_wrong_setting_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RASID_PORT", "many")
    done = runner.invoke(app, ["serve"])
    assert done.exit_code == 2
    assert "RASID_PORT" in done.output


def test_a_bundle_that_cannot_be_trusted_stops_the_start(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{}")
    for path, message in (
        (tmp_path, "expected a bundle"),
        (tmp_path / "broken", "expected bundle format"),
        (tiny_bundle, "is a candidate, not a release"),
    ):
        done = runner.invoke(app, ["serve", "--bundle", str(path), "--port", "0"])
        assert done.exit_code == 1
        assert message in " ".join(done.output.split())


def commands(program: typer.Typer, *above: str) -> Iterator[tuple[str, ...]]:
    """Every command of a program, by its words."""

    def leaves(command: Any, *words: str) -> Iterator[tuple[str, ...]]:
        below = getattr(command, "commands", {})
        if not below:
            yield words
        for name, one in below.items():
            yield from leaves(one, *words, name)

    return leaves(typer.main.get_command(program), *above)


@pytest.mark.parametrize("name", ["rasid", "rasid-train", "rasid-eval"])
def test_the_help_of_every_command_shows_what_to_type(name: str) -> None:
    program = {"rasid": app, "rasid-train": train_app, "rasid-eval": eval_app}[name]
    found = list(commands(program))
    assert len(found) >= 6
    lacking = []
    for words in found:
        done = runner.invoke(program, [*words, "--help"])
        assert done.exit_code == 0, (words, done.output)
        told = " ".join(done.stdout.split())
        if "Example" not in told or f"{name} {' '.join(words)}" not in told.partition("Example")[2]:
            lacking.append(" ".join(words))
    assert not lacking


def test_arabic_is_joined_and_ordered_for_a_terminal_that_does_not() -> None:
    [line] = lines_for_terminal("سلام", 20, right_to_left=True, reorder=True)
    assert line.strip() == "\ufee1\ufefc\ufeb3"  # meem final, lam-alef, seen initial: from left to right
    assert line.startswith(" ")
    assert lines_for_terminal("سلام", 20, right_to_left=True, reorder=False) == ["سلام"]


def test_the_first_line_of_wrapped_arabic_holds_its_beginning() -> None:
    lines = lines_for_terminal("كلمة أولى ثم كلمة ثانية ثم ثالثة", 12, right_to_left=True, reorder=True)
    assert len(lines) > 2
    assert "\ufedb" in lines[0]  # kaf initial of the first word
    assert lines_for_terminal("", 10, right_to_left=True, reorder=True) == [" " * 10]


def test_terminals_are_known_by_what_they_say() -> None:
    assert terminal_is_bidirectional({"VTE_VERSION": "7600"})
    assert not terminal_is_bidirectional({"VTE_VERSION": "7600", "TMUX": "x"})
    assert not terminal_is_bidirectional({"TERM": "xterm"})


def test_the_table_names_labels_in_both_languages(tiny: Classifier) -> None:
    out = io.StringIO()
    answers = tiny.classify(["The village", "", "في القرية"], granularity="document", evidence=True)
    print_answers(answers, tiny.bundle.taxonomy, Console(file=out, width=100), bidi="terminal")
    assert "Sectarian violence" in out.getvalue()
    assert "عنف طائفي" in out.getvalue()
    assert "1: not answered" in out.getvalue()


def test_a_request_never_waits_for_helper_threads_of_a_tiny_product() -> None:
    code = "import service.cli, threadpoolctl; print([lib['num_threads'] for lib in threadpoolctl.threadpool_info()])"
    left = {key: value for key, value in os.environ.items() if key != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], env=left, capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) == {1}
