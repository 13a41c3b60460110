"""Comparison and gate: the same model passes, worse ones are refused, chance alone refuses nobody."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from rich.console import Console
from typer.testing import CliRunner

from eval.cli import app
from eval.compare import compare, differences
from eval.documents import read_articles
from eval.gate import CHANCE, Check, GateResult, _f1_check, _suite_checks, gate, judge
from eval.metrics import precision_recall_f1
from eval.scoring import Scored
from eval.suites import SuiteResult
from eval.tables import print_gate
from models.bundle import hash_file, read_manifest, released_bundle_path, write_manifest
from models.classifier import Classifier
from models.errors import InputError
from models.example import LabelledExample, digest_examples
from tests.altered import altered, shuffled_head, wrong_threshold

runner = CliRunner()
LABELLED = Path(__file__).parents[2] / "eval" / "suites" / "passages.jsonl"


def dropped_arabic(content: bytes) -> bytes:
    """The embeddings of all pieces with Arabic letters gone."""
    tokenizer = json.loads((released_bundle_path() / "tokenizer.json").read_bytes())
    arabic = [i for i, (piece, _) in enumerate(tokenizer["model"]["vocab"]) if any("\u0600" <= c <= "\u06ff" for c in piece)]
    model = onnx.load_from_string(content)
    [tensor] = [one for one in model.graph.initializer if one.name == "emb.scales"]
    scales = numpy_helper.to_array(tensor).copy()
    scales[arabic] = 0
    tensor.CopyFrom(numpy_helper.from_array(scales, "emb.scales"))
    return model.SerializeToString()


def test_the_released_bundle_passes_against_itself(released: Classifier) -> None:
    result = gate(released, released, LABELLED, suites=False)
    assert result.passed
    assert {check.loss for check in result.checks} == {0.0}
    names = {check.name for check in result.checks if check.kind == "headline"}
    assert {"all: displacement", "ar: macro F1", "en: macro F1", "decided and right", "not decided wrongly"} <= names


@pytest.mark.parametrize(
    ("file", "change", "failing"),
    [
        ("decision", wrong_threshold, "all: accountability_call"),
        ("model", shuffled_head, "all: displacement"),
        ("model", dropped_arabic, "ar: macro F1"),
    ],
    ids=["wrong threshold", "shuffled head", "dropped language"],
)
def test_a_worse_bundle_is_refused_and_cannot_be_released(tmp_path: Path, file: str, change, failing: str) -> None:
    from training.cli import app as train_app

    candidate, verdict, report = altered(tmp_path / "worse", **{file: change}), tmp_path / "gate.json", tmp_path / "report.json"
    common = ["--data", str(LABELLED), "--no-suites", "-q"]
    done = runner.invoke(app, ["gate", str(candidate), *common, "--out", str(verdict)])
    assert done.exit_code == 1, done.output
    assert "refused" in done.output
    content = json.loads(verdict.read_text())
    assert failing in [check["name"] for check in content["checks"] if check["verdict"] == "worse"]
    assert content["passed"] is False
    done = runner.invoke(app, ["run", "--bundle", str(candidate), *common, "--out", str(report)])
    assert done.exit_code == 0, done.output
    place = ["--destination", str(tmp_path / "released")]
    done = runner.invoke(train_app, ["release", str(candidate), "--report", str(report), "--gate", str(verdict), *place])
    assert done.exit_code == 2
    assert "the gate refused the candidate" in done.output.replace("\n", " ")
    assert not (tmp_path / "released" / "rasid-worse").exists()


@pytest.fixture(scope="module")
def articles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Articles of four English passages each."""
    path = tmp_path_factory.mktemp("articles") / "articles.jsonl"
    passages = [row for row in map(json.loads, LABELLED.read_text(encoding="utf-8").splitlines()) if row["lang"] == "en"]
    rows = [{"id": f"a#{start}", "lang": "en", "sentences": passages[start::30]} for start in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def few_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("few") / "few.jsonl"
    path.write_text("".join(LABELLED.read_text(encoding="utf-8").splitlines(keepends=True)[::8]), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("threshold", "value", "failing"),
    [
        ("document_threshold", 0.99, "articles: article macro F1"),
        ("evidence_threshold", 0.001, "articles: evidence macro F1"),
    ],
)
def test_a_bundle_that_is_worse_on_whole_articles_alone_is_refused(
    tmp_path: Path, released: Classifier, articles: Path, few_texts: Path, threshold: str, value: float, failing: str
) -> None:
    def change(content: bytes) -> bytes:
        rules = json.loads(content)
        for by_label in rules["rules"].values():
            for rule in by_label.values():
                rule[threshold] = value
        return json.dumps(rules).encode()

    candidate = Classifier.load(altered(tmp_path / "worse", decision=change), require_seal=False)
    result = gate(candidate, released, few_texts, documents=articles, suites=False)
    assert not result.passed
    assert [check.name for check in result.checks if check.kind == "headline" and check.verdict == "worse"] == [failing]
    sentences = [one for article in read_articles(articles, released.bundle.taxonomy) for one in article.sentences]
    assert (result.documents, result.documents_digest) == ("articles.jsonl", digest_examples(sentences))
    [sentence] = [check for check in result.checks if check.name == "articles: sentence macro F1"]
    assert sentence.items == 30
    assert sentence.loss == 0


def test_a_suite_refuses_what_a_labelled_file_does_not_show(tiny_bundle: Path, tiny: Classifier, monkeypatch) -> None:
    import eval.gate

    values = iter([np.ones(40), np.concatenate([np.ones(25), np.zeros(15)])])  # the candidate is measured first

    def run_suite(classifier: Classifier, **_options: object) -> SuiteResult:
        found = next(values)
        return SuiteResult("typos", "Typos", "right", {"en": found[::-1]}, {"en": [str(i) for i in range(40)]})

    monkeypatch.setattr(eval.gate, "SUITES", (run_suite,))
    assert gate(tiny, tiny, LABELLED).passed  # here the released one is the worse
    values = iter([np.concatenate([np.ones(25), np.zeros(15)]), np.ones(40)])
    result = gate(tiny, tiny, LABELLED)
    assert [check.name for check in result.checks if check.verdict == "worse"] == ["typos", "typos: en"]


def test_a_first_bundle_must_beat_constant_answers(tiny: Classifier, released: Classifier) -> None:
    assert gate(released, None, LABELLED, suites=False).passed
    assert not gate(tiny, None, LABELLED, suites=False).passed


def test_a_first_bundle_is_not_asked_what_no_check_uses(tiny: Classifier, few_texts: Path, articles: Path, monkeypatch) -> None:
    import eval.gate

    def run_suite(classifier: Classifier, **_options: object) -> SuiteResult:
        raise AssertionError

    monkeypatch.setattr(eval.gate, "SUITES", (run_suite,))
    result = gate(tiny, None, few_texts, documents=articles)
    assert (result.suites, result.documents, result.documents_digest) == (False, None, None)


def test_files_that_cannot_judge_are_refused(tiny: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "labels": []}\n')
    with pytest.raises(InputError, match="needs labelled texts"):
        gate(tiny, tiny, path, suites=False)
    path.write_text('{"text": "They fled", "labels": ["displacement"]}\n')
    result = gate(tiny, tiny, path, suites=False)
    assert {check.verdict for check in result.checks} == {"too few"}
    assert not result.passed


def test_a_loss_within_the_margin_or_within_chance_is_forgiven() -> None:
    checks = [
        Check("headline", "small", 100, 0.90, 0.885, chance=0.0),
        Check("headline", "by chance", 100, 0.90, 0.80, chance=0.06),
        Check("headline", "worse", 100, 0.90, 0.87, chance=0.04),
        *[Check("detail", str(i), 50, 0.9, 0.8, chance=0.02) for i in range(9)],
        Check("detail", "collapse", 50, 0.9, 0.2, chance=0.001),
        Check("detail", "rare", 3, 0.9, 0.0, chance=1.0, verdict="too few"),
    ]
    assert [check.name for check in judge(checks, 0.02) if check.verdict == "worse"] == ["worse", "collapse"]


def test_items_that_depend_on_each_other_do_not_raise_false_alarms(monkeypatch) -> None:
    """Two models equally good, each right on all items of a group or on none: chance must be exceeded in about 5 %."""
    import eval.gate

    monkeypatch.setattr(eval.gate, "_SAMPLES", 400)
    generator = np.random.default_rng(8)
    groups, items = 60, 8
    names = [str(i) for i in range(groups)]
    of_item = np.repeat(names, items)
    alarms = {"grouped suite": 0, "suite": 0, "grouped F1": 0, "F1": 0}
    for _ in range(100):
        right = generator.random((2, groups)) < 0.8

        def suite(values: np.ndarray, *, grouped: bool) -> SuiteResult:
            cells = {str(i): values.astype(float) for i in range(items)}
            return SuiteResult("s", "S", "right", cells, {c: names if grouped else [f"{n}/{c}" for n in names] for c in cells})

        wanted = np.repeat(generator.random(groups) < 0.5, items)[:, None]
        decided = [wanted == np.repeat(one, items)[:, None] for one in right]
        for key, grouped in (("grouped ", True), ("", False)):
            whole, *_ = _suite_checks(*((suite(one, grouped=grouped),) for one in right))
            f1 = _f1_check("headline", "f1", of_item if grouped else np.arange(len(of_item)).astype(str), wanted, *decided)
            alarms[f"{key}suite"] += whole.chance <= CHANCE
            alarms[f"{key}F1"] += f1.chance <= CHANCE
            assert whole.items == (groups if grouped else groups * items)
    assert max(alarms["grouped suite"], alarms["grouped F1"]) <= 10
    assert min(alarms["suite"], alarms["F1"]) >= 20


def test_texts_of_one_document_count_as_one(tiny: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"id": f"d{i // 5}#{i}", "text": f"They fled {i}", "labels": ["displacement"]} for i in range(45)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    checks = {check.name: check for check in gate(tiny, tiny, path, suites=False).checks}
    assert (checks["all: displacement"].items, checks["all: displacement"].verdict) == (9, "too few")
    assert checks["decided and right"].items == 9


def test_what_the_table_leaves_out_is_told_by_verdict() -> None:
    checks = (
        Check("headline", "whole", 100, 0.9, 0.9, chance=1.0),
        *[Check("detail", str(i), 50, 0.9, 0.9, chance=1.0) for i in range(3)],
        *[Check("detail", f"rare {i}", 3, 0.9, 0.9, chance=1.0, verdict="too few") for i in range(2)],
    )
    result = GateResult("c" * 64, "a" * 64, "d.jsonl", "0", None, None, 0.02, suites=False, checks=checks)
    console = Console(width=110, record=True)
    print_gate(result, console)
    assert "0 of 6 checks failed; not shown: 3 passed, 2 too few" in console.export_text()


def scored(wanted: np.ndarray, decided: np.ndarray) -> Scored:
    rows = len(wanted)
    examples = tuple(LabelledExample(str(i), "t", frozenset()) for i in range(rows))
    p = decided.astype(float)
    return Scored(("a",), examples, np.array(["en"] * rows), wanted, p, np.full(p.shape, 0.5), decided, np.zeros_like(wanted))


def test_paired_intervals_hold_the_true_difference_as_often_as_they_say() -> None:
    """Two models with known error rates on many small files: the interval of B - A must hold the difference of large ones."""
    generator = np.random.default_rng(4)

    def draw(rows: int) -> tuple[Scored, Scored]:
        wanted = generator.random((rows, 1)) < 0.4
        first = wanted ^ (generator.random((rows, 1)) < 0.2)
        second = wanted ^ (generator.random((rows, 1)) < 0.1)
        return scored(wanted, first), scored(wanted, second)

    large = draw(400_000)
    truth = -np.diff([precision_recall_f1(one.decided[:, 0], one.wanted[:, 0])[2] for one in large[::-1]])[0]
    covered = 0
    for _ in range(60):
        [found, *_] = differences(*draw(150))
        covered += found.interval[0] <= truth <= found.interval[1]
    assert 0.85 <= covered / 60 <= 1.0


def test_comparison_names_what_changed(tmp_path: Path, released: Classifier) -> None:
    worse = Classifier.load(altered(tmp_path / "worse", decision=wrong_threshold), require_seal=False)
    found = {(one.slice, one.label): one for one in compare(released, worse, LABELLED)}
    hurt = found["all", "accountability_call"]
    assert hurt.difference < -0.2
    assert hurt.interval[1] < 0
    assert hurt.only_first > 20
    assert hurt.p_value < 1e-6
    same = found["all", "displacement"]
    assert (same.difference, same.only_first, same.only_second, same.p_value) == (0.0, 0, 0, 1.0)
    assert found["all", "macro"].p_value is None
    done = runner.invoke(app, ["compare", str(released.bundle.path), str(tmp_path / "worse"), "--data", str(LABELLED), "-q"])
    assert done.exit_code == 0, done.output
    assert "McNemar" in done.output


def test_bundles_of_different_taxonomies_cannot_be_compared(tiny: Classifier, tiny_bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_bundle, other)
    taxonomy = json.loads((other / "taxonomy.json").read_text())
    taxonomy["labels"].reverse()
    (other / "taxonomy.json").write_text(json.dumps(taxonomy))
    manifest = read_manifest(other)
    files = {**manifest.files, "taxonomy.json": hash_file(other / "taxonomy.json")}
    write_manifest(other, manifest.model_copy(update={"files": files}))
    with pytest.raises(InputError, match="two bundles of one taxonomy"):
        compare(tiny, Classifier.load(other, require_seal=False), LABELLED)
