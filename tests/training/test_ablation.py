"""Ablations: the losses by their formulas, which rows a variant takes, and a run with a tiny encoder."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from typer.testing import CliRunner

from models.decision import DecisionRule, LabelRule
from models.taxonomy import Taxonomy
from tests.conftest import tiny_bert, tiny_tokenizer_json
from training.ablation.consistency import Consistency
from training.ablation.heads import HiddenLayer, LabelAttention, MeanAndMax
from training.ablation.pretrain import pretrain
from training.ablation.run import Outcome, agreement_of, rows_of, summarise
from training.ablation.variants import VARIANTS, asymmetric
from training.cli import app
from training.encoder import PassageEncoder
from training.losses import binary_cross_entropy, class_weighted, focal
from training.pipeline import read_rows
from training.rows import TrainingRow

runner = CliRunner()


def row(name: str, *targets: float, unsure: bool = False) -> TrainingRow:
    return TrainingRow(name, name.split("#", maxsplit=1)[0], "", "en", f"text of {name}", targets, unsure)


def test_asymmetric_loss_forgives_clear_negatives() -> None:
    logits = torch.tensor([[-4.0, 0.0, 0.0]])
    loss = asymmetric(logits, torch.tensor([[0.0, 0.0, 1.0]]))
    assert loss[0].tolist() == pytest.approx([0.0, -math.log(0.55) * 0.45**4, math.log(2)], rel=1e-5)


def test_class_weights_are_those_of_torch() -> None:
    logits = torch.tensor([[-1.0, 2.0, 0.5], [0.3, -0.7, 1.5], [1.2, 0.1, -2.0], [-0.4, 0.9, 0.2]])
    wanted = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    loss = class_weighted(binary_cross_entropy, wanted)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, wanted, pos_weight=torch.tensor([3.0, 1 / 3, 1.0]), reduction="none"
    )
    assert torch.allclose(loss(logits, wanted), expected)
    assert torch.allclose(class_weighted(focal, wanted)(logits, 0 * wanted), focal(logits, 0 * wanted))


def test_variants_take_the_rows_they_say() -> None:
    rows = [row(f"own-{i}#0", 1, 0) for i in range(6)] + [row(f"real{i}#0", 0, 1, unsure=i % 2 == 0) for i in range(20)]
    rows += [row(f"pool{i}#0", 0.3, 0.9) for i in range(10)]
    taken = {name: variant.rows(rows, 8) for name, variant in VARIANTS.items()}
    assert {len(chosen) for name, chosen in taken.items() if name != "pseudo"} == {8}
    assert sum(r.id.startswith("own-") for r in taken["half-own"]) == 4
    assert not any(r.id.startswith("own-") for r in taken["without-own"])
    assert [r.id.startswith("pool") for r in taken["pseudo"]] == [False] * 8 + [True] * 4
    assert {r.targets for r in taken["smoothed"] if r.unsure} == {(0.2, 0.8)}
    assert [r.id for r in taken["baseline"]] == [r.id for r in VARIANTS["baseline"].rows(rows, 8)]


@pytest.mark.parametrize("network", [MeanAndMax, LabelAttention, HiddenLayer])
def test_heads_do_not_see_padding(network: type[PassageEncoder]) -> None:
    torch.manual_seed(0)
    model = network(tiny_bert(50, layers=1), 3).eval()
    if isinstance(model, LabelAttention):
        torch.nn.init.normal_(model.query.weight)
    short = torch.tensor([[5, 6, 7]])
    batch, mask = torch.tensor([[5, 6, 7, 1, 1], [9, 8, 7, 6, 5]]), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    with torch.no_grad():
        assert torch.allclose(model(batch, mask)[0], model(short, torch.ones_like(short))[0], atol=1e-5)


def test_label_attention_starts_as_the_mean() -> None:
    model = LabelAttention(tiny_bert(50, layers=1), 3).eval()
    ids, mask = torch.tensor([[5, 6, 7, 1]]), torch.tensor([[1, 1, 1, 0]])
    with torch.no_grad():
        hidden = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        assert torch.allclose(model.classify(hidden, mask), PassageEncoder.classify(model, hidden, mask), atol=1e-6)
        model.query.weight[0] += 3 * (hidden[0, 0] - hidden[0, 1])
        changed = (model.classify(hidden, mask) - PassageEncoder.classify(model, hidden, mask)).abs()[0]
    assert changed[0] > 1e-4
    assert changed[1:].max() < 1e-6


def test_the_largest_values_pass_the_mean_by() -> None:
    model = MeanAndMax(tiny_bert(50, layers=1), 1).eval()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.weight[0, 32:] = 1.0
        hidden = torch.zeros(1, 4, 32)
        hidden[0, 1, 3], hidden[0, 2, 3], hidden[0, 3] = 5.0, -5.0, 100.0
        assert model.classify(hidden, torch.tensor([[1, 1, 1, 0]])).item() == pytest.approx(5.0)


def test_a_summary_compares_with_the_baseline() -> None:
    def outcome(variant: str, seed: int, f1: float) -> Outcome:
        return Outcome(
            variant=variant, seed=seed, recipe="", sample=8, rows=8, epochs=1, average_precision=0.5, macro_f1=f1,
            validation_average_precision=0.5, validation_macro_f1=0.5, pairs_right=0.5,
        )  # fmt: skip

    first, second = summarise([outcome("baseline", 1, 0.5), outcome("asymmetric", 1, 0.6), outcome("baseline", 2, 0.7)])
    assert first.figures["macro_f1"] == pytest.approx((0.6, 0.1414), abs=1e-4)
    assert second.seeds == 1
    assert second.difference["macro_f1"] == pytest.approx(0.0)


def test_pretraining_learns_to_guess_hidden_pieces() -> None:
    torch.manual_seed(0)
    content = tiny_tokenizer_json()
    encoder = tiny_bert(len(content["model"]["vocab"]), layers=1)
    tokenizer = Tokenizer.from_str(json.dumps(content))
    if tokenizer.token_to_id("<mask>") is None:
        tokenizer.add_special_tokens(["<mask>"])
        encoder.resize_token_embeddings(tokenizer.get_vocab_size())
    texts = ["the river is near the village"] * 160
    before = encoder.get_input_embeddings().weight.clone()
    once = pretrain(encoder, tokenizer, texts, learning_rate=3e-3, show_progress=False)
    again = pretrain(encoder, tokenizer, texts, epochs=4, learning_rate=3e-3, show_progress=False)
    assert again < 0.5 * once
    assert torch.equal(before, encoder.get_input_embeddings().weight)


def test_command_runs_what_is_missing_and_prints_a_table(
    base: Path, work: Path, labelled: Path, unseen: Path, tmp_path: Path
) -> None:
    out = tmp_path / "outcomes"
    asked = ["ablate", "--work", str(work), "--out", str(out), "--base", str(base), "--rows", "100",
             "--epochs", "1", "--variant", "baseline", "--variant", "label-attention", "--variant", "weighted",
             "--quiet"]  # fmt: skip
    done = runner.invoke(app, [*asked, "--data", str(unseen)])
    assert done.exit_code == 0, done.output
    assert [json.loads(line)["variant"] for line in out.read_text().splitlines()] == ["baseline", "label-attention", "weighted"]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    written = out.read_bytes()
    again = runner.invoke(app, [*asked, "--data", str(unseen), "--json"])
    assert [summary["variant"] for summary in json.loads(again.stdout)] == ["baseline", "label-attention", "weighted"]
    assert out.read_bytes() == written
    for more, told in (
        (["--data", str(unseen), "--variant", "magic"], "no variant magic"),
        (["--data", str(labelled)], "expected passages that were not trained on, "),
        (["--data", str(unseen), "--variant", "pseudo"], "needs pseudo-labels"),
        (["--data", str(unseen), "--variant", "consistency"], "give --translations"),
    ):
        wrong = runner.invoke(app, [*asked, *more])
        assert (wrong.exit_code, told in " ".join(wrong.output.split())) == (2, True), wrong.output
    lines = unseen.read_text(encoding="utf-8").splitlines(keepends=True)
    unseen.write_text("".join(lines[:100]), encoding="utf-8")
    other = runner.invoke(app, [*asked, "--data", str(unseen)])
    assert other.exit_code == 0, other.output
    assert len(out.read_text().splitlines()) == 6


def test_translations_are_trained_on_and_measured(
    base: Path, work: Path, unseen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(name: str, texts: list[str]) -> Path:
        rows = [{"id": f"{name}{i}", "lang": lang, "text": text} for i, text in enumerate(texts) for lang in ("en", "ar")]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    seen: list[list] = []
    monkeypatch.setattr(
        "training.ablation.run.Consistency",
        lambda model, tokenizer, pairs, **rest: seen.append(pairs) or Consistency(model, tokenizer, pairs, **rest),
    )
    measured_text = json.loads(unseen.read_text(encoding="utf-8").splitlines()[0])["text"]
    pairs = write("pairs", ["the river", "the governor said", measured_text, "to be measured"])
    measured = write("measured", ["to be measured", "zz qq xx jj", "qq"])
    out = tmp_path / "outcomes"
    asked = ["ablate", "--work", str(work), "--out", str(out), "--base", str(base), "--rows", "100", "--epochs", "1", "--quiet",
             "--data", str(unseen), "--variant", "baseline", "--variant", "consistency",
             "--translations", str(pairs)]  # fmt: skip
    done = runner.invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "agreement" not in done.stdout
    done = runner.invoke(app, [*asked, "--measured-translations", str(measured), "--json"])
    assert done.exit_code == 0, done.output
    assert [[pair[0] for pair in pairs] for pairs in seen] == [
        ["the river", "the governor said", "to be measured"],
        ["the river", "the governor said"],
    ]
    assert len(out.read_text().splitlines()) == 4
    assert all(0 <= summary["figures"]["agreement"][0] <= 1 for summary in json.loads(done.stdout))
    assert [one["agreement"] is None for one in map(json.loads, out.read_text().splitlines())] == [True, True, False, False]
    in_training = write("known", [read_rows(work / "train.parquet")[0].text])
    for given, complaint in (
        (["--measured-translations", str(in_training)], "1 of 1 have a side among the training rows"),
        (["--measured-translations", str(pairs)], "all 4 are for validation or to measure on"),
    ):
        wrong = runner.invoke(app, [*asked, *given])
        assert (wrong.exit_code, complaint in " ".join(wrong.output.split())) == (2, True), wrong.output


def test_agreement_is_that_of_the_labels_on_both_sides(taxonomy: Taxonomy) -> None:
    rule = LabelRule(slope=1.0, intercept=0.0, threshold=0.5, review_low=0.4, review_high=0.6)
    rules = DecisionRule(rules={lang: dict.fromkeys(taxonomy.label_ids, rule) for lang in (*taxonomy.languages, "und")})
    logits = np.array([[1, 1, -1, -1], [1, -1, 1, -1], [-1, -1, -1, -1], [-1, -1, -1, 1]], dtype=np.float32)
    pairs = [("one", "واحد"), ("two", "اثنان")]
    assert [(row.language, row.text) for row in rows_of(pairs)][:2] == [("en", "one"), ("ar", "واحد")]
    assert agreement_of(pairs, logits, rules, taxonomy) == pytest.approx(2 / 5)
