"""Choosing passages to annotate: reading a pool, the mix of reasons, and the files that come out."""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.classifier import Classifier
from models.decision import DecisionRule
from models.engine import OnnxEngine
from models.errors import ExampleFormatError, InputError
from models.text import prepare_text
from training.clusters import cluster_texts
from training.exclusion import Exclusion, read_exclusion
from training.pool import index_pool, indexed_passages, read_pool
from training.sample import draw_sample, sample_files, write_sample
from training.selection import MIX, Candidates, choose, disagreement, quotas, rarest_labels
from training.standoff import text_digest

LABELS = ("sectarian_violence", "displacement", "official_statement", "accountability_call")
WHO = ["The governor", "A farmer", "The old man", "Some families", "المحافظ", "العائلات", "رجل", "الوزارة"]
WHAT = [
    "said that the village is empty",
    "fled from the river",
    "asked who will answer",
    "غادرت القرية أمس",
    "قالت إن المطر غزير",
]


def write(path: Path, rows: list[dict]) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def pool_rows(count: int = 80) -> list[dict]:
    rows = []
    for i in range(count):
        text = f"{WHO[i % 8]} {WHAT[i % 5]} {i}"
        lang = "ar" if i % 8 >= 4 else "en"
        rows.append({"id": f"news:{i // 4}#{i % 4}", "lang": lang, "source": "news", "text": text})
    return rows


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return write(tmp_path / "pool.jsonl.gz", pool_rows())


@pytest.fixture(scope="session")
def stricter(tiny_bundle: Path) -> Classifier:
    """The tiny bundle with thresholds so high that it decides differently."""
    bundle = Classifier.load(tiny_bundle, threads=1, require_seal=False).bundle
    rules = {
        language: {
            label: rule.model_copy(update={"threshold": 0.9, "review_low": 0.9, "review_high": 0.9})
            for label, rule in found.items()
        }
        for language, found in bundle.decision.rules.items()
    }
    changed = dataclasses.replace(bundle, decision=DecisionRule(rules=rules))
    return Classifier(changed, OnnxEngine(bundle.model_path, threads=1))


def draw(pool: Path, *classifiers: Classifier, count: int = 20, **options):
    return draw_sample([pool], classifiers, count, show_progress=False, **options)


# The pool


def test_a_pool_is_read_as_a_stream_with_what_a_row_does_not_state(tmp_path: Path) -> None:
    [passage] = read_pool([write(tmp_path / "p.jsonl", [{"text": "only a text"}])])
    assert (passage.id, passage.lang, passage.document) == ("p.jsonl:1", "", "p.jsonl:1")


def test_a_row_without_text_or_a_damaged_file_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ExampleFormatError, match=r"p\.jsonl:2: expected text to be a string, got NoneType"):
        list(read_pool([write(tmp_path / "p.jsonl", [{"text": "x"}, {"id": "a"}])]))
    whole = write(tmp_path / "cut.jsonl.gz", pool_rows()).read_bytes()
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-40])
    with pytest.raises(ExampleFormatError, match="damaged after line"):
        list(read_pool([tmp_path / "cut.jsonl.gz"]))
    (tmp_path / "plain.jsonl.gz").write_text("{}")
    with pytest.raises(ExampleFormatError, match="no gzip file"):
        list(read_pool([tmp_path / "plain.jsonl.gz"]))
    with pytest.raises(ExampleFormatError, match="found none"):
        list(read_pool([tmp_path / "none.jsonl"]))


def test_an_index_passes_over_what_cannot_be_used_and_counts_it(tmp_path: Path) -> None:
    rows = [
        {"id": "a#1", "lang": "en", "text": "They fled."},
        {"id": "a#2", "lang": "en", "text": "They  fled."},
        {"id": "a#1", "lang": "en", "text": "Another text with an old id"},
        {"id": "a#1", "lang": "ar", "text": "A translation may share one"},
        {"id": "b#1", "lang": "fr", "text": "Ils ont fui."},
        {"id": "b#2", "lang": "en", "text": "\u200b \u200b"},
    ]
    index = index_pool([write(tmp_path / "p.jsonl", rows)], ("ar", "en"), exclusion=Exclusion(), show_progress=False)
    assert index.positions.tolist() == [0, 3]
    assert index.skipped == {"empty": 1, "other language": 1, "repeated text": 1, "repeated id": 1}
    assert index.rows == 6


def test_a_digest_excludes_every_way_of_writing_the_text_wherever_it_stands(tmp_path: Path) -> None:
    rows = [{"id": "a", "lang": "en", "text": "They  fled."}, {"id": "b", "lang": "en", "text": "They fled."}]
    rows.append({"id": "c", "lang": "en", "text": "They stayed."})
    exclusion = Exclusion(digests=frozenset({text_digest("They fled.")}))
    index = index_pool([write(tmp_path / "p.jsonl", rows)], ("en",), exclusion=exclusion, show_progress=False)
    assert index.positions.tolist() == [0, 2]
    assert index.labelled.tolist() == index.only_by_digest.tolist() == [True, False]


def test_a_pool_that_became_shorter_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", pool_rows(4))
    assert [passage.id for passage in indexed_passages([path], np.array([1, 3]))] == ["news:0#1", "news:0#3"]
    with pytest.raises(InputError, match="expected row 6 in the pool"):
        list(indexed_passages([path], np.array([1, 5])))


def test_the_index_needs_some_hundred_bytes_a_passage_whatever_the_texts_weigh(tmp_path: Path) -> None:
    import tracemalloc

    rows = [{"id": f"d{i}#0", "lang": "en", "text": f"{i} " + "long text " * 200} for i in range(300)]
    path = write(tmp_path / "p.jsonl", rows)
    tracemalloc.start()
    index_pool([path], ("en",), exclusion=Exclusion(), show_progress=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_500 * len(rows) < path.stat().st_size


# What is excluded


def test_what_is_excluded_may_stand_in_any_of_our_files(tmp_path: Path, taxonomy) -> None:
    texts = ["labelled row", "handed out", "in a table", "a task", "in the small export"]
    paths = [
        write(tmp_path / "a.jsonl", [{"id": "1", "text": texts[0], "labels": []}]),
        write(tmp_path / "b.jsonl.gz", [{"id": "2", "text": texts[1], "chosen": "random"}]),
        tmp_path / "c.csv",
        tmp_path / "d.json",
        tmp_path / "e.json",
        write(tmp_path / "f.jsonl", [{"id": "6", "lang": "en", "sha256": "AB" * 32, "labels": []}]),
    ]
    paths[2].write_text(f"text,labels\n{texts[2]},displacement\n")
    paths[3].write_text(json.dumps([{"data": {"text": texts[3]}}]))
    paths[4].write_text(json.dumps([{"text": texts[4], "annotation_id": 1, "labels": "displacement"}]))
    found = read_exclusion(paths, taxonomy)
    assert len(found.keys) == 5
    assert found.digests == {"ab" * 32}
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "a.jsonl", [{"text": "x"}])
    assert len(read_exclusion([folder], taxonomy).keys) == 1
    with pytest.raises(ExampleFormatError, match=r"g\.jsonl:1: expected a field 'text' or 'sha256', the row has id"):
        read_exclusion([write(tmp_path / "g.jsonl", [{"id": "secret"}])], taxonomy)


# The mix


def candidates(rows: int = 200, bundles: int = 2, *, seed: int = 0, documents: int = 200, clusters: int = 7) -> Candidates:
    generator = np.random.default_rng(seed)
    shape = (bundles, rows, len(LABELS))
    probabilities = generator.beta([0.3, 0.8, 2.0, 0.5], 2.0, shape).astype(np.float32)
    return Candidates(
        labels=LABELS,
        probabilities=probabilities,
        thresholds=np.full(shape, 0.5, dtype=np.float32),
        documents=generator.integers(0, documents, rows),
        clusters=generator.integers(0, clusters, rows),
        labelled=generator.integers(0, 30, clusters),
    )


@given(
    rows=st.integers(1, 60),
    bundles=st.integers(1, 3),
    documents=st.integers(1, 30),
    clusters=st.integers(1, 9),
    count=st.integers(1, 80),
    per_document=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_nothing_is_chosen_twice_and_as_much_as_documents_leave(
    rows: int, bundles: int, documents: int, clusters: int, count: int, per_document: int, seed: int
) -> None:
    pool = candidates(rows, bundles, seed=seed, documents=documents, clusters=clusters)
    chosen = choose(pool, count, per_document=per_document, seed=seed)
    taken = [choice.row for choice in chosen]
    by_document = Counter(pool.documents[taken].tolist())
    available = sum(min(per_document, number) for number in Counter(pool.documents.tolist()).values())
    assert len(set(taken)) == len(taken) == min(count, available)
    assert max(by_document.values()) <= per_document
    assert chosen == choose(pool, count, per_document=per_document, seed=seed)


@given(count=st.integers(1, 5_000), bundles=st.integers(1, 3))
def test_shares_add_up_to_what_is_asked_for_and_are_those_stated(count: int, bundles: int) -> None:
    pool = candidates(20, bundles)
    shares = quotas(pool, count)
    assert sum(shares.values()) == count
    assert ("disagreement" in shares) == (bundles > 1)
    whole = 1.0 if bundles > 1 else 1.0 - MIX["disagreement"]
    assert shares["random"] == pytest.approx(count * MIX["random"] / whole, abs=1)
    assert sum(n for name, n in shares.items() if name.startswith("uncertain-")) == pytest.approx(
        count * MIX["uncertain"] / whole, abs=4
    )
    assert len({shares[f"uncertain-{label}"] for label in LABELS}) <= 2


def test_the_mix_is_whole() -> None:
    assert sum(MIX.values()) == pytest.approx(1.0)


def test_each_reason_takes_what_it_says() -> None:
    pool = candidates(400, 2, documents=10**6)
    chosen = choose(pool, 60)
    rows: dict[str, list[int]] = {}
    for choice in chosen:
        rows.setdefault(choice.reason, []).append(choice.row)
    first = pool.probabilities[0]
    assert {name for name in rows if name.startswith("rare-")} == {"rare-sectarian_violence", "rare-accountability_call"}
    for label in ("sectarian_violence", "accountability_call"):
        column = LABELS.index(label)
        assert first[rows[f"rare-{label}"], column].min() > np.quantile(first[:, column], 0.9)
    for column, label in enumerate(LABELS):
        distance = np.abs(first[:, column] - 0.5)
        assert distance[rows[f"uncertain-{label}"]].max() < np.quantile(distance, 0.1)
    differ = disagreement(pool)
    assert differ[rows["disagreement"]].min() > np.quantile(differ, 0.9)


def test_the_random_share_does_not_depend_on_the_model() -> None:
    one, other = candidates(300, 1, seed=1), candidates(300, 1, seed=2)
    other = dataclasses.replace(other, documents=one.documents)
    chosen = [[c.row for c in choose(pool, 50, seed=5) if c.reason == "random"] for pool in (one, other)]
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 12  # 0.20 / 0.85 of 50, rounded by largest remainders


def test_passages_that_bundles_decide_differently_come_first() -> None:
    pool = candidates(3, 2)
    pool.probabilities[:] = 0.1
    pool.probabilities[1, 1] = 0.45  # far apart, but both say no
    pool.probabilities[:, 2, 0] = 0.49, 0.51  # close, but one says yes
    values = disagreement(pool)
    assert values[2] > 1 > values[1] > values[0] == 0


def test_clusters_that_labels_cover_least_are_taken_first() -> None:
    pool = dataclasses.replace(
        candidates(90, 1, documents=10**6),
        clusters=np.repeat([0, 1, 2], 30),
        labelled=np.array([300, 0, 300]),
    )
    chosen = choose(pool, 20)
    assert {choice.reason for choice in chosen if choice.reason.startswith("cluster")} == {"cluster-1"}


def test_the_rarest_labels_are_the_rarer_half_by_expected_share() -> None:
    pool = candidates(4, 1)
    pool.probabilities[0] = [0.2, 0.1, 0.9, 0.4]
    assert rarest_labels(pool) == [1, 0]


# Clusters


def test_alike_texts_share_a_cluster_and_labelled_ones_fall_into_it() -> None:
    texts = [f"flood water river rain storm {i}" for i in range(20)] + [
        f"court judge verdict trial lawyer {i}" for i in range(20)
    ]
    found = cluster_texts(lambda: iter(texts), 40, labelled=["a judge at the court"], show_progress=False)
    floods, courts = set(found.assigned[:20].tolist()), set(found.assigned[20:].tolist())
    assert not floods & courts
    assert found.labelled.sum() == 1
    assert int(found.labelled.argmax()) in courts


@pytest.mark.parametrize("texts", [["!"], ["same", "same", "same"], ["? !", "1", "2 3"], [f"number {i}" for i in range(70)]])
def test_texts_with_hardly_a_word_are_clustered_too(texts: list[str]) -> None:
    found = cluster_texts(lambda: iter(texts), len(texts), labelled=["unheard of"], show_progress=False)
    assert found.assigned.shape == (len(texts),)
    assert found.assigned.max() < len(found.labelled)


# The whole way


def test_a_sample_keeps_every_promise(pool: Path, tiny: Classifier, tmp_path: Path) -> None:
    rows = pool_rows()
    labelled = write(tmp_path / "labelled.jsonl", [{"text": row["text"], "labels": []} for row in rows[:10]])
    standoff = write(tmp_path / "standoff.jsonl", [{"sha256": text_digest(row["text"])} for row in rows[10:20]])
    sample = draw(pool, tiny, exclude=[labelled, standoff])
    texts = [prepare_text(passage.text).text for passage in sample.passages]
    assert len(set(texts)) == len(texts) == 20
    assert not set(texts) & {prepare_text(row["text"]).text for row in rows[:20]}
    assert max(Counter(passage.id.split("#")[0] for passage in sample.passages).values()) <= 2
    assert (sample.rows, sample.usable, sample.passed_over["excluded"]) == (80, 60, 20)
    assert sum(sample.counts().values()) == 20
    answers = tiny.classify([row["text"] for row in rows[20:]])
    expected = {label: sum(answer.labels[label].probability for answer in answers) for label in LABELS}
    assert {reason for reason, _ in sample.counts()} == {
        "cluster",
        "random",
        *(f"uncertain-{label}" for label in LABELS),
        *(f"rare-{label}" for label in sorted(LABELS, key=expected.__getitem__)[:2]),
    }


def test_the_seed_decides(pool: Path, tiny: Classifier) -> None:
    assert draw(pool, tiny, seed=3) == draw(pool, tiny, seed=3)
    assert draw(pool, tiny, seed=3).passages != draw(pool, tiny, seed=4).passages


def test_bundles_that_decide_differently_add_their_disagreement(pool: Path, tiny: Classifier, stricter: Classifier) -> None:
    alone = {reason for reason, _ in draw(pool, tiny).counts()}
    both = draw(pool, tiny, stricter).counts()
    assert "disagreement" not in alone
    assert sum(number for (reason, _), number in both.items() if reason == "disagreement") == 3


def test_one_language_can_be_asked_for(pool: Path, tiny: Classifier) -> None:
    sample = draw(pool, tiny, language="ar")
    assert {passage.lang for passage in sample.passages} == {"ar"}
    assert sample.passed_over["other language"] == 40
    with pytest.raises(InputError, match="expected a language of ar, en, got 'fr'"):
        draw(pool, tiny, language="fr")


def test_a_small_pool_gives_what_it_has_and_an_exhausted_one_says_so(pool: Path, tiny: Classifier) -> None:
    assert len(draw(pool, tiny, count=500, per_document=1).passages) == 20
    with pytest.raises(InputError, match="got 80 rows, of them 80 excluded"):
        draw(pool, tiny, exclude=[pool])


def test_bundles_of_other_labels_are_refused(pool: Path, tiny: Classifier) -> None:
    other = Classifier(tiny.bundle, OnnxEngine(tiny.bundle.model_path, threads=1))
    other.labels = ("matconf",)
    with pytest.raises(InputError, match="expected bundles with the same labels"):
        draw(pool, tiny, other)


def test_annotators_do_not_see_probabilities_unless_asked_for(pool: Path, tiny: Classifier, tmp_path: Path, taxonomy) -> None:
    sample = draw(pool, tiny)
    plain, shown = tmp_path / "plain.jsonl", tmp_path / "shown.jsonl"
    write_sample(sample, plain, taxonomy, file_format="jsonl")
    write_sample(sample, shown, taxonomy, file_format="jsonl", show_probabilities=True)
    rows = [json.loads(line) for line in plain.read_text(encoding="utf-8").splitlines()]
    assert [list(row) for row in rows] == [["id", "lang", "source", "text", "chosen"]] * 20
    row = json.loads(shown.read_text(encoding="utf-8").splitlines()[0])
    [answer] = tiny.classify([row["text"]])
    assert row["probabilities"] == {label: answer.labels[label].probability for label in LABELS}


def test_a_sample_for_label_studio_comes_with_its_form(pool: Path, tiny: Classifier, tmp_path: Path, taxonomy) -> None:
    out = tmp_path / "round1.json"
    assert write_sample(draw(pool, tiny), out, taxonomy, file_format="label-studio") == [out, tmp_path / "round1.xml"]
    tasks = json.loads(out.read_text(encoding="utf-8"))
    assert set(tasks[0]["data"]) == {"id", "passage_id", "lang", "text", "source", "chosen"}
    form = ElementTree.parse(tmp_path / "round1.xml")
    assert [choice.get("alias") for choice in form.iter("Choice")] == [*LABELS, "unsure"]


def test_a_file_that_may_hold_annotations_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("mine")
    with pytest.raises(InputError, match=r"a\.xml exists and is not overwritten"):
        sample_files(tmp_path / "a.json", "label-studio")
    with pytest.raises(InputError, match=r"expected a name such as .*b\.json"):
        sample_files(tmp_path / "b.xml", "label-studio")
    assert sample_files(tmp_path / "a.json", "jsonl") == [tmp_path / "a.json"]
