"""From labelled files to a released bundle, with a tiny encoder in place of the real one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from tokenizers import Tokenizer
from typer.testing import CliRunner

from models.bundle import RELEASED_DIRECTORY, load_bundle
from models.classifier import Classifier
from models.engine import OnnxEngine
from models.errors import InputError
from training.base import BaseEncoderError, load_base
from training.cli import app
from training.encoder import PassageEncoder
from training.finetune import FineTuneSettings, average_precision, bfloat16_is_faster, fine_tune, macro_f1, predict_logits
from training.parity import Parity
from training.pipeline import check_parity, judged_rows, load_network, read_rows
from training.release import _SHIPPED_MARGIN, _passing_gate
from training.rows import TrainingRow
from training.soup import average_networks

runner = CliRunner()


def test_one_command_goes_from_labelled_files_to_a_candidate_bundle(work: Path) -> None:
    bundle = load_bundle(work / "bundle", require_seal=False)
    assert not bundle.sealed
    assert bundle.manifest.training["train"] + bundle.manifest.training["validation"] == 240
    assert bundle.manifest.data.keys() == {"rows.jsonl"}
    parity = bundle.manifest.training["parity"]
    assert round(parity["flipped"] * parity["texts"] * 4) <= 1  # decisions
    histograms = bundle.manifest.training["reference"]
    assert all(len(counts) == 10 for labels in histograms.values() for counts in labels.values())
    rows = bundle.manifest.training["validation"]
    assert 0 < sum(sum(labels["displacement"]) for labels in histograms.values()) <= rows
    [answer] = Classifier(bundle, _engine(bundle)).classify(["They fled the village"])
    assert set(answer.labels) == set(bundle.taxonomy.label_ids)


def test_the_bundle_says_what_the_fitted_network_says(work: Path) -> None:
    from training.batching import encode

    bundle = load_bundle(work / "bundle", require_seal=False)
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    texts = ["The family zz on Monday 3", "رجل qq في القرية 8"]
    expected = predict_logits(load_network(work, 4), tokenizer, texts, max_tokens=48)
    assert np.abs(_engine(bundle).logits(encode(tokenizer, texts, 48)) - expected).max() < 0.3


def test_the_own_corpus_is_not_judged_by_where_other_rows_are_enough() -> None:
    own = [TrainingRow(f"own-en-a:{n}#0", f"own-en-a:{n}", "own", "en", "x", (1, 1, 1, 1), unsure=False) for n in range(60)]
    real = [TrainingRow(f"r:{n}#0", f"r:{n}", "r", "en", "x", (1, 1, 1, 1), unsure=False) for n in range(50)]
    assert judged_rows(own + real) == real
    assert judged_rows(own + real[:49]) == own + real[:49]
    assert judged_rows(own) == own


def test_parity_is_measured_on_a_labelled_file(work: Path, labelled: Path) -> None:
    done = runner.invoke(app, ["parity", "--work", str(work), "--data", str(labelled)])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["texts"], found["flipped"] <= 0.02) == (240, True)
    assert runner.invoke(app, ["parity", "--work", str(labelled.parent), "--data", str(labelled)]).exit_code == 2


def test_an_export_that_says_the_contrary_is_found_out(
    work: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, honest = tmp_path / "work", OnnxEngine.logits
    shutil.copytree(work, folder)
    monkeypatch.setattr(OnnxEngine, "logits", lambda self, rows: -honest(self, rows))
    found = json.loads(runner.invoke(app, ["parity", "--work", str(folder), "--data", str(labelled)]).stdout)
    assert found["flipped"] > 0.2
    assert found["macro_f1_exported"] < found["macro_f1_reference"] - 0.1
    done = runner.invoke(app, ["calibrate", "--work", str(folder), "--name", "contrary", "--version", "1"])
    assert (done.exit_code, "the int8 model flips" in " ".join(done.output.split())) == (2, True), done.output


def test_the_weights_of_several_seeds_are_averaged(
    base: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.finetune.bfloat16_is_faster", lambda: False)  # a measurement: it may differ between fits
    common = ["fit", "--data", str(labelled), "--base", str(base), "--epochs", "1", "--quiet"]
    for name, seeds in (("one", ["1"]), ("two", ["2"]), ("both", ["1", "2"])):
        flags = [flag for seed in seeds for flag in ("--seed", seed)]
        assert runner.invoke(app, [*common, "--work", str(tmp_path / name), *flags]).exit_code == 0
    both, one = (load_network(tmp_path / name, 4).state_dict() for name in ("both", "one"))
    apart = load_network(average_networks([tmp_path / "one", tmp_path / "two"], tmp_path / "apart"), 4).state_dict()
    assert all(torch.allclose(both[name], apart[name], atol=1e-6) for name in both)
    runs = [torch.load(tmp_path / "both/checkpoints" / f"seed-{seed}" / "best.pt", weights_only=True) for seed in (1, 2)]
    for name in runs[0]:
        assert torch.allclose(both[name], (runs[0][name] + runs[1][name]) / 2, atol=1e-6)
        assert torch.allclose(one[name], runs[0][name])
    words = "encoder.embeddings.word_embeddings.weight"
    assert torch.equal(both[words], one[words])


@pytest.fixture(scope="module")
def other_work(base: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network fitted on some of the rows in another order."""
    folder = tmp_path_factory.mktemp("other")
    some = folder / "some.jsonl"
    some.write_text("".join(labelled.read_text(encoding="utf-8").splitlines(keepends=True)[:200]), encoding="utf-8")
    done = runner.invoke(
        app,
        ["fit", "--data", str(some), "--work", str(folder / "work"), "--base", str(base), "--epochs", "3",
         "--learning-rate", "0.003", "--seed", "3", "--quiet"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return folder / "work"


def test_networks_fitted_apart_are_averaged_and_go_on_as_one(work: Path, other_work: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    done = runner.invoke(app, ["average", str(work), str(other_work), "--work", str(both)])
    assert done.exit_code == 0, done.output
    first, second, mean = (load_network(folder, 4).state_dict() for folder in (work, other_work, both))
    assert all(torch.allclose(mean[name], (first[name] + second[name]) / 2, atol=1e-6) for name in mean)
    assert not torch.equal(first["head.weight"], second["head.weight"])
    for command in (["export", "--quiet"], ["calibrate", "--name", "both", "--version", "1"]):
        done = runner.invoke(app, [*command, "--work", str(both)])
        assert done.exit_code == 0, done.output
    manifest = load_bundle(both / "bundle", require_seal=False).manifest
    assert manifest.data.keys() == {"rows.jsonl", "some.jsonl"}
    assert [(part["seeds"], part["data"]) for part in manifest.training["averaged"]] == [
        ([1], ["rows.jsonl"]),
        ([3], ["some.jsonl"]),
    ]
    assert manifest.training["train"] + manifest.training["validation"] == 240


def test_networks_are_measured_before_export(
    work: Path, other_work: Path, unseen: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.measure.bfloat16_is_faster", lambda: False)
    asked = ["measure", str(work), str(other_work), "--data", str(unseen)]
    found = json.loads(runner.invoke(app, [*asked, "--json"]).stdout)
    assert [one["work"] for one in found] == [str(work), str(other_work)]
    rows = [json.loads(line) for line in unseen.read_text(encoding="utf-8").splitlines()]
    labels = load_bundle(work / "bundle", require_seal=False).taxonomy.label_ids
    truth = np.array([[label in row["labels"] for label in labels] for row in rows])
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    for folder, one in zip((work, other_work), found, strict=True):
        judged = read_rows(folder / "validation.parquet")
        for name, texts, wanted in (
            ("average_precision", [row["text"] for row in rows], truth),
            ("validation_average_precision", [row.text for row in judged], np.array([row.targets for row in judged])),
        ):
            logits = predict_logits(load_network(folder, 4), tokenizer, texts, max_tokens=48)
            assert one[name] == pytest.approx(average_precision_score(wanted, logits, average="macro"), abs=1e-6)
        assert 0.2 < one["macro_f1"] <= 1.0
        assert 0.2 < one["average_precision"] <= 1.0
        assert one["languages"].keys() == {"ar", "en"}
        assert min(one["languages"].values()) <= one["macro_f1"] + 0.1
    assert found[0]["average_precision"] != found[1]["average_precision"]
    table = runner.invoke(app, asked)
    assert (table.exit_code, "validation AP" in table.output) == (0, True)
    seen = runner.invoke(app, ["measure", str(work), "--data", str(labelled)])
    assert (seen.exit_code, "expected passages that were not trained on" in " ".join(seen.output.split())) == (2, True)


def test_no_part_of_an_average_was_trained_on_its_validation_rows(
    base: Path, labelled: Path, work: Path, tmp_path: Path
) -> None:
    lines = labelled.read_text(encoding="utf-8").splitlines(keepends=True)
    validation, rest = tmp_path / "validation.jsonl", tmp_path / "rest.jsonl"
    validation.write_text("".join(lines[:40]), encoding="utf-8")
    rest.write_text("".join(lines[40:]), encoding="utf-8")
    other = tmp_path / "other"
    done = runner.invoke(
        app,
        ["fit", "--data", str(rest), "--validation", str(validation), "--work", str(other), "--base", str(base),
         "--epochs", "1", "--quiet"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    average_networks([work, other], tmp_path / "both")
    train, judged = (
        {row.document for row in read_rows(tmp_path / "both" / f"{part}.parquet")} for part in ("train", "validation")
    )
    assert judged
    assert not train & judged
    trained = {row.document for folder in (work, other) for row in read_rows(folder / "train.parquet")}
    assert not judged & trained


@pytest.mark.parametrize("count", [1, 2])
def test_what_cannot_be_averaged_is_told(work: Path, tmp_path: Path, count: int) -> None:
    with pytest.raises(InputError, match="at least two" if count == 1 else "run rasid-train fit"):
        average_networks([work, tmp_path / "unfitted"][:count], tmp_path / "both")
    with pytest.raises(InputError, match="choose another --work"):
        average_networks([work, work], work)


def test_networks_of_other_vocabularies_are_not_averaged(work: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(work, other)
    (other / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="one base, vocabulary and taxonomy"):
        average_networks([work, other], tmp_path / "both")


def test_a_release_needs_a_gate_and_a_report_of_that_very_model(
    work: Path, tmp_path: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eval.cli import app as eval_app

    report, gate = tmp_path / "report.json", tmp_path / "gate.json"
    common = ["--data", str(labelled), "--no-suites", "--quiet"]
    done = runner.invoke(eval_app, ["run", *common, "--bundle", str(work / "bundle"), "--out", str(report)])
    assert done.exit_code == 0, done.output
    done = runner.invoke(
        eval_app, ["gate", str(work / "bundle"), *common, "--against", str(work / "bundle"), "--out", str(gate)]
    )
    assert done.exit_code == 0, done.output

    def changed(path: Path, **fields: object) -> Path:
        other = path.with_name(f"other-{path.name}")
        other.write_text(json.dumps(json.loads(path.read_text()) | fields))
        return other

    monkeypatch.chdir(tmp_path)

    def release(report: Path, gate: Path, *more: str):
        return runner.invoke(app, ["release", str(work / "bundle"), "--report", str(report), "--gate", str(gate), *more])

    for path in (changed(report, model_hash="0" * 64), tmp_path / "none.json", labelled):
        assert release(path, gate).exit_code == 2
    for path, message in (
        (tmp_path / "none.json", "expected the gate's verdict"),
        (labelled, "is not a verdict of rasid-eval gate"),
        (changed(gate, candidate="0" * 64), "judged the model 000000000000"),
    ):
        done = release(report, path)
        assert (done.exit_code, message in " ".join(done.output.split())) == (2, True), done.output
    for fields, message in (({"passed": False}, "the gate refused"), ({"data_digest": "0"}, "are of different files")):
        done = release(report, changed(gate, **fields))
        assert (done.exit_code, message in " ".join(done.output.split())) == (2, True), done.output
    done = release(report, gate, "--destination", str(RELEASED_DIRECTORY))
    assert (done.exit_code, "compared with no bundle that is released" in " ".join(done.output.split())) == (2, True)
    for same in (report, changed(report, data_digest="0", model_hash="1" * 64), tmp_path / "none.json"):
        assert release(report, gate, "--reduced-report", str(same)).exit_code == 2
    reduced = changed(report, model_hash="1" * 64)
    done = release(report, gate, "--reduced-report", str(reduced))
    assert done.exit_code == 0, done.output
    bundle = load_bundle(tmp_path / "bundles" / "tiny-1")
    assert bundle.sealed
    assert bundle.manifest.quality["gate"]["passed"] is True
    assert bundle.manifest.quality["gate"]["same_model"] is True
    card = (bundle.path / "MODEL_CARD.md").read_text()
    assert f"{json.loads(report.read_text())['slices'][0]['averages']['macro']['f1']:.3f}" in card
    assert "from the corpus of the repository alone" in " ".join(card.split())
    assert len(bundle.manifest.training["review_band"]) == 8
    assert "| en | displacement |" in card
    assert release(report, changed(gate, against=bundle.manifest.model_hash)).exit_code == 2  # never overwritten
    done = release(report, changed(gate, against="1" * 64), "--destination", "others")
    assert done.exit_code == 0, done.output
    assert load_bundle(tmp_path / "others" / "tiny-1").manifest.quality["gate"]["same_model"] is False


def test_the_shipped_bundle_must_have_passed_the_whole_gate(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle(work / "bundle", require_seal=False)
    whole = {"against": "1" * 64, "data_digest": "2", "margin": 0.02, "suites": True, "documents": "a.jsonl", "passed": True}
    whole |= {"candidate": bundle.manifest.model_hash, "checks": []}
    gate, again = tmp_path / "gate.json", {"data": "d.jsonl", "data_digest": "2"}

    def judge(destination: Path, verdict: dict[str, object]) -> dict[str, object]:
        gate.write_text(json.dumps(verdict))
        return _passing_gate(bundle, gate, again, destination)

    monkeypatch.setattr("training.release.RELEASED_DIRECTORY", tmp_path / "released")
    for change, told in (
        ({"margin": 0.05}, "its margin 0.05 is above 0.02"),
        ({"suites": False}, "it ran no suites"),
        ({"documents": None}, "it judged no articles"),
    ):
        with pytest.raises(InputError, match=f"the bundle that Rasid ships: {told}; run rasid-eval gate"):
            judge(tmp_path / "other" / ".." / "released", whole | change)
        assert judge(tmp_path / "other", whole | change)["passed"] is True
    older = {key: value for key, value in whole.items() if key != "documents"}
    with pytest.raises(InputError, match="it judged no articles"):
        judge(tmp_path / "released", older)
    assert judge(tmp_path / "released", whole)["same_model"] is False
    first = older | {"against": None, "suites": False}  # nothing is released yet, so there is nothing to compare articles with
    assert judge(tmp_path / "released", first)["against"] is None


def test_the_margin_of_the_shipped_bundle_is_that_of_the_gate() -> None:
    from eval.gate import MARGIN

    assert _SHIPPED_MARGIN == MARGIN


ROWS = [
    TrainingRow(f"d{i}#0", f"d{i}", "s", "en", f"{'zz' if i % 2 else 'qq'} village {i}", (i % 2, 0, 1, 0), i % 5 == 0)
    for i in range(40)
]


def fresh_network(base: Path, seed: int = 0) -> PassageEncoder:
    torch.manual_seed(seed)
    return PassageEncoder(load_base(str(base)).model, 4, dropout=0.1)


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_training_stopped_half_way_ends_where_it_would_have_ended(
    base: Path, tiny_tokenizer, tmp_path: Path, precision: str
) -> None:
    rows = ROWS
    settings = FineTuneSettings(epochs=2, batch_size=4, checkpoint_every_steps=3, precision=precision, max_tokens=48)

    def model():
        return fresh_network(base)

    def train(network, folder: Path):
        return fine_tune(
            network, tiny_tokenizer, rows[:32], rows[32:], settings, checkpoint_directory=folder, show_progress=False
        )

    answers = iter([True, False])  # the processor is measured again, and otherwise, when the run goes on
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.finetune.bfloat16_is_faster", lambda: True)
        whole = model()
        history = train(whole, tmp_path / "whole")
    broken = model()
    calls = 0
    original = torch.optim.AdamW.step

    def failing(self, *args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 12:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.finetune.bfloat16_is_faster", lambda: next(answers))
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(torch.optim.AdamW, "step", failing)
            with pytest.raises(KeyboardInterrupt):
                train(broken, tmp_path / "broken")
        again = model()
        resumed = train(again, tmp_path / "broken")
    assert [r.validation_loss for r in resumed] == pytest.approx([r.validation_loss for r in history], abs=1e-5)
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_checkpoint_of_other_texts_rows_or_weights_is_refused(base: Path, tiny_tokenizer, tmp_path: Path) -> None:
    settings = FineTuneSettings(epochs=1, batch_size=4, precision="float32", max_tokens=48)

    def train(train=ROWS[:32], validation=ROWS[32:], seed: int = 0):
        network = fresh_network(base, seed)
        return fine_tune(
            network, tiny_tokenizer, train, validation, settings, checkpoint_directory=tmp_path, show_progress=False
        )

    assert train() == train()
    edited = [replace(ROWS[0], text="another text"), *ROWS[1:32]]
    for changed in ({"train": ROWS[:30]}, {"train": edited}, {"validation": ROWS[33:]}, {"seed": 1}):
        with pytest.raises(InputError, match="other settings or rows"):
            train(**changed)


def test_a_run_stopped_in_validation_validates_when_it_goes_on(base: Path, tiny_tokenizer, tmp_path: Path) -> None:
    settings = FineTuneSettings(epochs=1, batch_size=4, checkpoint_every_steps=4, precision="float32", max_tokens=48)

    def train():
        return fine_tune(
            fresh_network(base),
            tiny_tokenizer,
            ROWS[:32],
            ROWS[32:],
            settings,
            checkpoint_directory=tmp_path,
            show_progress=False,
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.finetune.predict_logits", lambda *_args, **_more: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train()
    assert [result.epoch for result in train()] == [1]


def test_stages_of_other_rows_or_weights_are_not_put_together(base: Path, labelled: Path, work: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(work, folder)
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text("".join(labelled.read_text(encoding="utf-8").splitlines(keepends=True)[:200]), encoding="utf-8")
    fit = ["fit", "--work", str(folder), "--base", str(base), "--epochs", "3", "--learning-rate", "0.003", "--quiet"]
    assert runner.invoke(app, [*fit, "--data", str(fewer)]).exit_code == 2
    done = runner.invoke(app, ["calibrate", "--work", str(folder)])
    assert (done.exit_code, "run rasid-train fit" in " ".join(done.output.split())) == (2, True)
    assert runner.invoke(app, [*fit, "--data", str(labelled)]).exit_code == 0
    done = runner.invoke(app, ["calibrate", "--work", str(folder)])
    assert (done.exit_code, "run rasid-train export" in " ".join(done.output.split())) == (2, True)


def test_reading_rows_leaves_no_copy_of_their_texts(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    assert len(read_rows(work / "train.parquet")) > 100
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_macro_f1_of_a_perfect_answer_is_one() -> None:
    wanted = np.array([[1, 0], [0, 1]], np.float32)
    assert macro_f1(wanted * 2 - 1, wanted) == 1.0
    assert macro_f1(1 - wanted * 2, wanted) == 0.0


def test_average_precision_counts_the_labels_that_are_there() -> None:
    wanted = np.array([[1, 0], [0, 0], [1, 0], [0, 0]], np.float32)
    logits = np.array([[4, 9], [3, 9], [2, 9], [1, 9]], np.float32)
    assert average_precision(logits, wanted) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(logits, wanted * 0) == 0.0


@pytest.mark.parametrize(("by", "kept"), [("average_precision", 1), ("macro_f1", 0)])
def test_the_epoch_is_chosen_by_the_figure_asked_for(base: Path, tiny_tokenizer, tmp_path: Path, by: str, kept: int) -> None:
    settings = FineTuneSettings(epochs=2, batch_size=4, precision="float32", max_tokens=48, epoch_by=by)
    saved = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.finetune.average_precision", lambda *_: 0.5 + 0.1 * len(saved))
        patch.setattr("training.finetune.macro_f1", lambda *_: 0.5 - 0.1 * len(saved))
        patch.setattr(
            "training.finetune._save",
            lambda _path, _state, _model, _o, _s, average: saved.append(
                {name: value.clone() for name, value in average.items()}
            ),
        )
        network = fresh_network(base)
        fine_tune(network, tiny_tokenizer, ROWS[:32], ROWS[32:], settings, checkpoint_directory=tmp_path, show_progress=False)
    weights = dict(network.named_parameters())
    assert all(torch.equal(weights[name], value) for name, value in saved[kept].items())
    assert not torch.equal(weights["head.weight"], saved[1 - kept]["head.weight"])


@pytest.mark.parametrize(("float32", "bfloat16", "faster"), [(2.0, 1.0, True), (1.0, 2.0, False)])
def test_the_faster_precision_of_this_processor_is_taken(
    monkeypatch: pytest.MonkeyPatch, float32: float, bfloat16: float, faster: bool
) -> None:
    clock = iter([0.0, float32, 10.0, 10.0 + bfloat16])
    monkeypatch.setattr("training.finetune.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    state = torch.get_rng_state()
    assert bfloat16_is_faster() is faster
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("texts", "flipped", "after"), [(900, 0.02, 0.8), (900, 0.005, 0.79), (16, 2 / 64, 0.8)])
def test_an_export_that_costs_too_much_is_refused(texts: int, flipped: float, after: float) -> None:
    with pytest.raises(InputError, match="the int8 model flips"):
        check_parity(Parity(texts, 0.8, after, flipped, 0.1, 0.1), 4)


def test_one_decision_of_few_rows_refuses_no_export() -> None:
    check_parity(Parity(9, 0.8, 0.8, 0.0, 0.0, 0.0), 4)
    check_parity(Parity(16, 0.8, 0.78, 1 / 64, 0.1, 0.1), 4)


def test_an_unknown_base_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BaseEncoderError, match="could not be loaded"):
        load_base(str(tmp_path))


def test_faults_in_the_data_are_told_and_exit_with_2(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "a", "labels": ["war"]}\n')
    done = runner.invoke(app, ["fit", "--data", str(tmp_path / "bad.jsonl"), "--work", str(tmp_path / "w")])
    assert done.exit_code == 2
    assert "bad.jsonl:1: unknown label 'war'" in done.output.replace("\n", "")
    assert runner.invoke(app, ["export", "--work", str(tmp_path)]).exit_code == 2


def _engine(bundle):
    return OnnxEngine(bundle.model_path, threads=1)
