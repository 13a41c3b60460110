"""The speed benchmark: what it does, not how fast this machine happens to be."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from eval.bench import RASID, Benchmark, benchmark, find_contenders, fit_plan, run_rounds
from eval.contenders import protocol
from eval.contenders.arithmetic import Operations, PeakInt8, count_operations
from eval.contenders.figures import Cell, Spread, agreements_of, peak_memory_of, ratios_of, rows_of, unsteadiness
from eval.contenders.machine import Moment, moment, others_share
from eval.contenders.process import Contender, ContenderError, RunningContender, Timing
from eval.contenders.rasid import verdicts
from eval.contenders.tables import print_benchmark
from eval.contenders.workload import FULL, QUICK, Length, Plan, SizedText, Source, make_texts, read_sources, token_counter
from models.bundle import load_bundle, released_bundle_path
from models.classifier import Classifier
from models.errors import InputError
from tests.conftest import TEXTS, tiny_bert, tiny_tokenizer_json
from training.reference import write_reference

SMALL = Plan(lengths=(Length("12", 8, 16, 4), Length("40", 30, 48, 3)), batches=(1, 2), rounds=2, starts=1)
SECRET = "a text that nobody may see"


def timing(seconds: float, decisions: str = "yn", sides: str = "10", *, batches: tuple[float, ...] = (), memory: float = 1.0):
    return Timing(seconds, batches or (seconds,), (decisions,), (sides,), memory)


def scripted(code: str, name: str = "scripted") -> Contender:
    return Contender(name, (sys.executable, "-c", code))


ECHO = """
import json, sys
print(json.dumps({"ready": True, "load_seconds": 0.1, "about": "echo"}), flush=True)
for line in sys.stdin:
    texts = json.loads(line)["texts"]
    reply = {"seconds": 0.5, "batch_seconds": [0.5], "decisions": ["y"] * len(texts), "sides": ["1"] * len(texts)}
    print(json.dumps({**reply, "peak_memory_mb": 7.0}), flush=True)
"""


@pytest.fixture(scope="module")
def reference(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import PreTrainedTokenizerFast

    base = tmp_path_factory.mktemp("base")
    tiny_bert(len(tiny_tokenizer_json()["model"]["vocab"]), layers=1).save_pretrained(base)
    (base / "raw.json").write_text(json.dumps(tiny_tokenizer_json()), encoding="utf-8")
    raw = PreTrainedTokenizerFast(tokenizer_file=str(base / "raw.json"), unk_token="<unk>", pad_token="<pad>")
    raw.save_pretrained(base)
    return write_reference(tiny_bundle, tmp_path_factory.mktemp("reference") / "reference", base=str(base))


@pytest.fixture(scope="module")
def whole(tiny_bundle: Path, reference: Path) -> tuple[Benchmark, list[tuple[int, int]]]:
    told: list[tuple[int, int]] = []
    found = benchmark(
        tiny_bundle, SMALL, reference=reference, threads=1, progress=lambda done, total: told.append((done, total))
    )
    return found, told


def test_every_contender_is_measured_in_every_cell(whole) -> None:
    found, told = whole
    names = {RASID, "float32", "pipeline"}
    assert {(row.length, row.batch, row.contender) for row in found.rows} == {
        (length, batch, name) for length in ("12", "40") for batch in (1, 2) for name in names
    }
    assert all(row.texts_per_second.low <= row.texts_per_second.median <= row.texts_per_second.high for row in found.rows)
    assert all((row.latency_p50_ms is None) == (row.batch != 1) for row in found.rows)
    assert all((row.limit_share is None) == (row.contender != RASID) for row in found.rows)
    assert {(one.length, one.batch, one.against) for one in found.ratios} == {
        *((length, batch, name) for length in ("12", "40") for batch in (1, 2) for name in names - {RASID}),
        ("all", None, "float32"),
        ("all", None, "pipeline"),
    }
    assert told[-1] == (3 * 2 * 2 * 7, 3 * 2 * 2 * 7)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_the_same_weights_say_the_same_in_float32_and_in_pytorch(whole) -> None:
    found, _ = whole
    pairs = {(one.first, one.second): one for one in found.agreements}
    assert set(pairs) == {(RASID, "float32"), (RASID, "pipeline"), ("float32", "pipeline")}
    assert pairs["float32", "pipeline"].decisions == 2 * 2 * 7 * 4
    assert pairs["float32", "pipeline"].flipped == 0
    assert pairs[RASID, "float32"].flipped < 0.2


def test_the_share_of_other_programs_is_what_is_not_ours(monkeypatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert others_share(Moment(0, 100, 10), Moment(10, 115, 20)) == pytest.approx(0.25)
    assert others_share(Moment(0, 100, 10), Moment(10, 105, 20)) == 0.0
    assert others_share(None, Moment(0, 1, 1)) == 0.0
    first, second = moment(), moment()
    assert first is not None
    assert second is not None
    assert second.machine >= first.machine > first.own > 0


def test_a_busy_or_unsteady_machine_is_told(tiny_bundle: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("eval.bench.others_share", lambda _before, _after: 0.4)
    monkeypatch.setattr("eval.bench.unsteadiness", lambda _rows: 1.8)
    found = benchmark(tiny_bundle, SMALL, reference=tmp_path / "none", threads=1)
    assert any("other programs had 40% of the processors" in notice for notice in found.notices)
    assert any("more than 1.80 times as fast" in notice for notice in found.notices)


def test_start_up_memory_and_limit_are_reported(whole) -> None:
    found, _ = whole
    assert [one.name for one in found.contenders] == [RASID, "float32", "pipeline"]
    assert all(one.start_seconds > one.load_seconds > 0 for one in found.contenders)
    memory = {one.name: one.peak_memory_mb for one in found.contenders}
    assert memory["pipeline"] > memory[RASID] > 10
    assert not found.footprint.torch_imported
    assert found.peak_operations.low > found.operations.int8_per_token > 0


def test_figures_are_json_and_tables_and_hold_no_text(whole, tiny_bundle: Path) -> None:
    found, _ = whole
    written = json.dumps(found.as_json(), ensure_ascii=False)
    back = json.loads(written)
    assert (back["bench_version"], back["threads"], back["rounds"]) == (1, 1, 2)
    out = io.StringIO()
    print_benchmark(found, Console(file=out, width=140))
    for word in ("tiny 0", "pipeline", "p99 ms", "times as fast", "other side of the threshold", "int8 matrix product"):
        assert word in out.getvalue()
    sources = read_sources(load_bundle(tiny_bundle, require_seal=False))
    assert not any(source.text[:20] in written for source in sources)


def test_without_a_reference_rasid_is_measured_alone_and_told_how_to_get_one(tiny_bundle: Path, tmp_path: Path) -> None:
    found = benchmark(tiny_bundle, SMALL, reference=tmp_path / "none", threads=1)
    assert {row.contender for row in found.rows} == {RASID}
    assert (found.ratios, found.agreements) == ((), ())
    assert any("rasid-train reference --bundle" in notice and str(tmp_path / "none") in notice for notice in found.notices)


def test_a_reference_of_another_bundle_is_refused(tiny_bundle: Path, reference: Path, tmp_path: Path) -> None:
    bundle = load_bundle(tiny_bundle, require_seal=False)
    other = tmp_path / "reference"
    other.mkdir()
    with pytest.raises(InputError, match=r"expected reference\.json"):
        find_contenders(bundle, other, threads=1)
    (other / "reference.json").write_text(json.dumps({"model_hash": "f" * 64}))
    with pytest.raises(InputError, match=r"made from the model ffffffffffff, the bundle is .*run rasid-train reference"):
        find_contenders(bundle, other, threads=1)
    (other / "reference.json").write_bytes((reference / "reference.json").read_bytes())
    with pytest.raises(InputError, match=r"lacks float32\.onnx"):
        find_contenders(bundle, other, threads=1)


def test_without_torch_the_pipeline_is_left_out_with_a_notice(tiny_bundle: Path, reference: Path, monkeypatch) -> None:
    honest = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else honest(name))
    contenders, notices = find_contenders(load_bundle(tiny_bundle, require_seal=False), reference, threads=1)
    assert [one.name for one in contenders] == [RASID, "float32"]
    assert "torch not installed" in notices[0]


def test_threads_reach_every_contender(tiny_bundle: Path, reference: Path) -> None:
    contenders, _ = find_contenders(load_bundle(tiny_bundle, require_seal=False), reference, threads=3)
    assert all(one.command[one.command.index("--threads") + 1] == "3" for one in contenders)
    code = ECHO.replace('"echo"', '__import__("os").environ["OMP_NUM_THREADS"]')
    with RunningContender(scripted(code), threads=3) as running:
        assert running.about == "3"


def test_ratios_are_formed_by_round_and_summed_over_cells_as_a_geometric_mean() -> None:
    cells = [Cell("10", 1), Cell("100", 8)]
    for cell, ours, theirs in ((cells[0], (1.0, 2.0, 1.0), (2.0, 6.0, 4.0)), (cells[1], (1.0, 1.0, 1.0), (8.0, 12.0, 9.0))):
        cell.tokens.extend([[10, 10]] * 3)
        cell.timings[RASID] = [timing(seconds) for seconds in ours]
        cell.timings["other"] = [timing(seconds) for seconds in theirs]
    first, second, overall = ratios_of(cells, RASID)
    assert (first.length, first.batch, first.against, first.times) == ("10", 1, "other", Spread(3.0, 2.0, 4.0))
    assert second.times == Spread(9.0, 8.0, 12.0)
    assert (overall.length, overall.batch) == ("all", None)
    assert [overall.times.low, overall.times.median, overall.times.high] == pytest.approx([4.0, 6.0, 6.0])


def test_rates_latency_and_the_share_of_the_limit_follow_from_the_timings() -> None:
    cell = Cell("10", 1, tokens=[[10, 20], [20, 20]])
    cell.timings[RASID] = [timing(0.5, batches=(0.1, 0.4), memory=5.0), timing(1.0, batches=(0.5, 0.5), memory=9.0)]
    cell.timings["other"] = [timing(2.0, memory=3.0), timing(4.0, memory=2.0)]
    ours, theirs = rows_of([cell], RASID, Operations(100, 0, 1), peak=10_000.0)
    assert ours.texts_per_second == Spread(3.0, 2.0, 4.0)
    assert ours.tokens_per_second == Spread(50.0, 40.0, 60.0)
    assert ours.latency_p50_ms == pytest.approx(450)
    assert ours.latency_p99_ms == pytest.approx(500)
    assert ours.mean_tokens == 17.5
    assert ours.limit_share is not None
    assert [ours.limit_share.high, ours.limit_share.low] == pytest.approx([(3_000 + 500) / 0.5 / 1e4, (4_000 + 800) / 1e4])
    assert theirs.limit_share is None
    assert unsteadiness([ours, theirs]) == pytest.approx((1.5 + 1.5) / 2)
    assert peak_memory_of([cell]) == {RASID: 9.0, "other": 3.0}


def test_agreement_counts_answers_and_sides_apart() -> None:
    cell = Cell("10", 1, tokens=[[10]])
    cell.timings["a"] = [Timing(1.0, (1.0,), ("ynrn", ""), ("1000", ""), 1.0)]
    cell.timings["b"] = [Timing(1.0, (1.0,), ("ynnn", ""), ("1000", ""), 1.0)]
    [found] = agreements_of([cell])
    assert (found.decisions, found.differing, found.flipped) == (5, 0.2, 0.0)


def test_operations_are_counted_from_the_file(tiny_bundle: Path, reference: Path) -> None:
    per_layer = 32 * 96 + 32 * 32 + 32 * 64 + 64 * 32
    found = count_operations(tiny_bundle / "model.onnx")
    assert found == Operations(2 * 2 * per_layer, 0, 2 * 2 * 2 * 32)
    assert count_operations(reference / "float32.onnx") == Operations(0, found.int8_per_token, found.attention_per_pair)
    assert found.of([3, 5]) == 8 * found.int8_per_token + (9 + 25) * found.attention_per_pair
    released = load_bundle(released_bundle_path()).model_path
    assert count_operations(released).int8_per_token == 42_467_328


def test_the_limit_is_the_best_of_all_measurements() -> None:
    peak = PeakInt8(threads=1)
    rates = [peak.measure(seconds=0.001) for _ in range(3)]
    assert peak.rates == rates
    assert peak.best == max(rates) > 0


def test_texts_have_the_lengths_of_their_cell(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle, require_seal=False)
    tokens_of = token_counter(bundle)
    sources = read_sources(bundle)
    assert len(sources) == 960
    for length in SMALL.lengths:
        texts = make_texts(sources, length, 40, tokens_of=tokens_of)
        assert len({text.text for text in texts}) == 40
        assert all(text.tokens == tokens_of(text.text) <= length.high for text in texts)
        assert np.mean([length.low <= text.tokens for text in texts]) > 0.5
    again = make_texts(sources, length, 40, tokens_of=tokens_of)
    assert again == texts


def test_texts_are_joined_within_their_language() -> None:
    sources = [Source("one two", "en"), Source("واحد اثنان", "ar"), Source("three four", "en")]
    texts = make_texts(sources, Length("6", 5, 6, 1), 6, tokens_of=lambda text: len(text.split()))
    assert sum(text.text.isascii() for text in texts) == 4
    assert all(text.text.isascii() or not any("a" <= char <= "z" for char in text.text) for text in texts)


def test_a_single_short_source_still_fills_the_longest_cell() -> None:
    texts = make_texts([Source("one two", "en")], Length("20", 20, 20, 1), 3, tokens_of=lambda text: len(text.split()))
    assert [text.tokens for text in texts] == [20, 20, 20]
    few = make_texts([Source("one two three", "en")], Length("2", 2, 3, 1), 1, tokens_of=lambda text: len(text.split()))
    assert few == [SizedText("one two three", 3)]


def test_texts_can_come_from_a_file(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = load_bundle(tiny_bundle, require_seal=False)
    data = tmp_path / "a.jsonl"
    data.write_text("".join(json.dumps({"text": text, "labels": []}) + "\n" for text in TEXTS))
    assert [source.language for source in read_sources(bundle, data)][:2] == ["en", "ar"]
    data.write_text(json.dumps({"text": "\u200b", "labels": []}) + "\n")
    with pytest.raises(InputError, match=r"visible characters in .*a\.jsonl"):
        read_sources(bundle, data)


def test_lengths_beyond_the_bundle_are_left_out_and_told() -> None:
    plan, notices = fit_plan(FULL, 240)
    assert plan.lengths[-1].high == 240
    assert notices == []
    plan, notices = fit_plan(FULL, 60)
    assert [length.name for length in plan.lengths] == ["10", "20-60"]
    assert notices == ["texts of 100 and 250 tokens are left out: the bundle takes 60"]
    with pytest.raises(InputError, match="takes 5 tokens"):
        fit_plan(QUICK, 5)


def test_contenders_take_turns_on_the_same_texts_in_changing_order() -> None:
    calls: list[tuple[str, tuple[str, ...], int]] = []

    class Recorder:
        def __init__(self, name: str) -> None:
            self.name = name

        def classify(self, texts, batch):
            calls.append((self.name, tuple(texts), batch))
            return Timing(1.0, (1.0,), ("y",) * len(texts), ("1",) * len(texts), 1.0)

    plan = Plan(lengths=(Length("a", 1, 2, 2),), batches=(1, 2), rounds=6, starts=1)
    texts = {"a": [SizedText(str(index), 1) for index in range(12)]}
    between: list[int] = []
    cells = run_rounds([Recorder("x"), Recorder("y")], plan, texts, between=lambda: between.append(len(calls)))
    warm, measured = calls[: between[0]], calls[between[0] :]
    assert {name for name, _, _ in warm} == {"x", "y"}
    pairs = list(zip(measured[::2], measured[1::2], strict=True))
    assert all(first[1:] == second[1:] and first[0] != second[0] for first, second in pairs)
    assert {first[0] for first, _ in pairs} == {"x", "y"}
    assert len({texts for _, texts, _ in measured}) == 6
    assert [len(cell.timings["x"]) for cell in cells] == [6, 6]
    assert len(between) == 7


def test_a_contender_that_dies_is_told_with_its_last_words_and_no_text() -> None:
    with pytest.raises(ContenderError, match=r"scripted died while loading \(exit code 3\): no such model; run it by hand"):
        RunningContender(scripted("import sys; print('first\\nno such model', file=sys.stderr); sys.exit(3)"), threads=1)
    code = ECHO.replace("texts = ", "raise SystemExit('out of memory') #")
    running = RunningContender(scripted(code), threads=1)
    with (
        running,
        pytest.raises(ContenderError, match=r"died on 1 texts in batches of 1 \(exit code 1\): out of memory") as caught,
    ):
        running.classify([SECRET], 1)
    assert SECRET not in str(caught.value)
    with pytest.raises(ContenderError, match="signal SIGKILL"):
        RunningContender(scripted("import os; os.kill(os.getpid(), 9)"), threads=1)


def test_an_error_of_a_contender_never_carries_a_text() -> None:
    code = """
from eval.contenders.protocol import Loaded, serve
def classify(texts): raise ValueError(f"cannot read {texts}")
serve(lambda: Loaded("faulty", classify, lambda texts, results: []))
"""
    with RunningContender(scripted(code), threads=1) as running, pytest.raises(ContenderError) as caught:
        running.classify([SECRET], 1)
    assert "ValueError at <string>:3" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_contender_that_hangs_or_babbles_is_ended() -> None:
    with pytest.raises(ContenderError, match="gave no answer while loading within"):
        RunningContender(scripted("import time; time.sleep(60)"), threads=1, timeout_seconds=0.2)
    with pytest.raises(ContenderError, match="did not keep to the line protocol"):
        RunningContender(scripted("print('hello')"), threads=1)
    with (
        RunningContender(scripted(ECHO.replace('["y"] * len(texts)', "[]")), threads=1) as running,
        pytest.raises(ContenderError, match="expected 2 decisions"),
    ):
        running.classify(["a", "b"], 1)


def test_no_process_outlives_its_measurement() -> None:
    stubborn = ECHO + "\nimport time\ntime.sleep(60)"
    running = RunningContender(scripted(ECHO), threads=1)
    slow = RunningContender(scripted(stubborn), threads=1)
    assert running.classify(["a", "b"], 2).decisions == ("y", "y")
    running.close()
    assert running._process.returncode == 0
    slow.close()
    assert slow._process.returncode == -9
    with pytest.raises(RuntimeError), RunningContender(scripted(ECHO), threads=1) as last:
        raise RuntimeError
    assert last._process.returncode is not None


def test_what_a_library_prints_does_not_disturb_the_protocol() -> None:
    code = """
import os
from eval.contenders.protocol import Loaded, Verdict, serve
def load():
    print("loading")
    os.write(1, b"from a library in C\\n")
    judge = lambda texts, results: [Verdict("y", "1")] * len(texts)
    return Loaded("noisy", lambda texts: [print("x") for _ in texts], judge)
serve(load)
"""
    with RunningContender(scripted(code), threads=1) as running:
        found = running.classify(["a", "b", "c"], 2)
    assert running.about == "noisy"
    assert (len(found.batch_seconds), found.sides) == (2, ("1", "1", "1"))
    assert found.seconds == pytest.approx(sum(found.batch_seconds))


def test_verdicts_are_the_answers_of_the_classifier(tiny: Classifier) -> None:
    answers = tiny.classify([*TEXTS, "\u200b"])
    found = verdicts(answers, tiny.bundle)
    assert [one.decisions for one in found[:-1]] == [
        "".join(answer.labels[label].decision[0] for label in tiny.labels) for answer in answers[:-1]
    ]
    for one, answer in zip(found[:-1], answers[:-1], strict=True):
        assert one.sides == "".join("1" if answer.labels[label].probability >= 0.5 else "0" for label in tiny.labels)
    assert (found[-1].decisions, found[-1].sides) == ("", "")


def test_peak_memory_is_of_this_process() -> None:
    assert 10 < protocol.peak_memory_mb() < 100_000
