"""Our service against the servers people use, on the same texts, interleaved in one run with equal threads.

Each round sends new texts (20 to 60 tokens, 2 % of 256) over 32 connections to every server in shuffled order; the others sleep
meanwhile. Beside the servers stand the classifier in process and the policy of text-embeddings-inference in process.
"""

from __future__ import annotations

import importlib.util
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eval.contenders.figures import Spread, spread
from eval.contenders.process import Contender, ContenderError, RunningContender
from eval.contenders.workload import Length, make_texts, read_sources, token_counter
from eval.servers.running import RunningServer, Server, rasid_server
from models.bundle import Bundle, load_bundle
from models.engine import OnnxEngine, available_processors

CONNECTIONS = 32
BULK = 32
OURS, OURS_BULK, IN_PROCESS = "rasid", "rasid, 32 texts a request", "rasid in process"
_SHORT, _LONG = Length("20-60", 20, 60, 0), Length("256", 240, 256, 0)
_LONG_SHARE = 0.02
_SETTLE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Contestant:
    """What one of them did: texts a second, and how many times as fast our service was, one text a request."""

    name: str
    texts_per_second: Spread
    times: Spread
    start_seconds: float | None
    memory_mb: float | None


@dataclass(frozen=True, slots=True)
class Latency:
    """One text alone, in milliseconds: a bare call of the session, and a request over HTTP."""

    session_p50: float
    request_p50: float
    request_p99: float


@dataclass(frozen=True, slots=True)
class ServerComparison:
    """One run."""

    bundle: str
    threads: int
    rounds: int
    texts_a_round: int
    contestants: tuple[Contestant, ...]
    latency: Latency
    notices: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """All figures."""
        return asdict(self)


def compare_servers(
    bundle_path: Path,
    *,
    reference: Path,
    rounds: int,
    texts_a_round: int,
    threads: int | None = None,
    data: Path | None = None,
    infinity: Path | None = None,
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> ServerComparison:
    """Measure. `infinity` is the Python of an environment with infinity-emb. Raises ContenderError, InputError, BundleError."""
    bundle = load_bundle(bundle_path, require_seal=False)
    threads = threads or available_processors()
    texts = mixed_texts(bundle, data, rounds * texts_a_round + 64)
    short = mixed_texts(bundle, data, 200, long_share=0.0)
    servers, contenders, notices = _find(bundle, reference, threads, infinity)
    generator = random.Random(1)
    rates: dict[str, list[float]] = {}
    starts: dict[str, float] = {}
    memory: dict[str, float] = {}
    warm, texts = texts[:64], texts[64:]
    with ExitStack() as stack:
        running: dict[str, RunningServer] = {}
        for server in servers:
            try:
                one = stack.enter_context(RunningServer(server, probe=warm[0]))
            except ContenderError as error:
                notices.append(str(error))
                continue
            starts[server.name] = one.start_seconds
            one.load([[text] for text in warm], connections=CONNECTIONS)
            one.sleep()
            running[server.name] = one
        inside = {one.name: stack.enter_context(RunningContender(one, threads=threads)) for one in contenders}
        for contender in inside.values():
            contender.classify(warm, BULK)
        names = [*running, OURS_BULK, *inside]
        for turn in range(rounds):
            chosen = texts[turn * texts_a_round : (turn + 1) * texts_a_round]
            for name in generator.sample(names, len(names)):
                rates.setdefault(name, []).append(_measure(name, chosen, running, inside))
                progress(turn * len(names) + len(rates), rounds * len(names))
        for name, server_running in running.items():
            memory[name] = server_running.memory_mb()
        latency = _latency(bundle, running[OURS], short, threads)
    ours = rates[OURS]
    contestants = [
        Contestant(
            name=name,
            texts_per_second=spread(found),
            times=spread([own / other for own, other in zip(ours, found, strict=True)]),
            start_seconds=starts.get(name),
            memory_mb=memory.get(name),
        )
        for name, found in rates.items()
    ]
    return ServerComparison(
        bundle=f"{bundle.manifest.name} {bundle.manifest.version}",
        threads=threads,
        rounds=rounds,
        texts_a_round=texts_a_round,
        contestants=tuple(sorted(contestants, key=lambda one: -one.texts_per_second.median)),
        latency=latency,
        notices=tuple(notices),
    )


def mixed_texts(bundle: Bundle, data: Path | None, count: int, *, long_share: float = _LONG_SHARE, seed: int = 1) -> list[str]:
    """Texts of 20 to 60 tokens with 2 % of 256 among them, in random order."""
    sources, tokens_of = read_sources(bundle, data), token_counter(bundle)
    long = round(count * long_share)
    texts = make_texts(sources, _SHORT, count - long, tokens_of=tokens_of, seed=seed)
    texts += make_texts(sources, _LONG, long, tokens_of=tokens_of, seed=seed)
    return [text.text for text in random.Random(seed).sample(texts, len(texts))]


def _measure(name: str, texts: Sequence[str], running: dict[str, RunningServer], inside: dict[str, RunningContender]) -> float:
    """Texts a second."""
    if name in inside:
        time.sleep(_SETTLE_SECONDS)
        return len(texts) / inside[name].classify(texts, BULK).seconds
    server = running[OURS if name == OURS_BULK else name]
    size = BULK if name == OURS_BULK else 1
    requests = [texts[at : at + size] for at in range(0, len(texts), size)]
    server.wake()
    time.sleep(_SETTLE_SECONDS)
    try:
        load = server.load(requests, connections=min(CONNECTIONS, len(requests)) if size == 1 else 2)
    finally:
        server.sleep()
    if load.count(200) < len(requests):
        raise ContenderError(f"the server {name} answered {load.count(200)} of {len(requests)} requests: {server.last_words()}")
    return len(texts) / load.seconds


def _latency(bundle: Bundle, server: RunningServer, texts: Sequence[str], threads: int) -> Latency:
    engine = OnnxEngine(bundle.model_path, threads=threads)
    tokenizer = bundle.tokenizer()
    rows = [tokenizer.encode(text).ids[: bundle.manifest.max_tokens] for text in texts]
    server.wake()
    try:
        bare: list[float] = []
        asked: list[float] = []
        for at in range(0, len(texts), 20):  # by turns, so that a slow moment meets both
            for row in rows[at : at + 20]:
                began = time.perf_counter()
                engine.run([row])
                bare.append(time.perf_counter() - began)
            asked.extend(server.load([[text] for text in texts[at : at + 20]], connections=1).latencies)
    finally:
        server.sleep()
    ordered = sorted(asked)
    return Latency(
        session_p50=1_000 * statistics.median(bare),
        request_p50=1_000 * statistics.median(ordered),
        request_p99=1_000 * ordered[int(0.99 * len(ordered))],
    )


def _find(
    bundle: Bundle, reference: Path, threads: int, infinity: Path | None
) -> tuple[list[Server], list[Contender], list[str]]:
    path = bundle.path.resolve()
    common = ("--bundle", str(path), "--threads", str(threads))
    module = (sys.executable, "-m")
    servers = [rasid_server(path, threads=threads)]
    contenders = [Contender(IN_PROCESS, (*module, "eval.contenders.rasid", *common))]
    notices = []
    variables = {"OMP_NUM_THREADS": str(threads)}
    has_reference = (reference / "reference.json").is_file()
    if not has_reference:
        notices.append(f"{reference} is not there; rasid-train reference --bundle {path} --out {reference} makes it")
    else:
        model = str(reference.resolve() / "float32.onnx")
        contenders.append(
            Contender("text-embeddings-inference's policy", (*module, "eval.servers.tei_policy", *common, "--model", model))
        )
    if importlib.util.find_spec("litserve") is None:
        notices.append("LitServe is left out: pip install litserve")
    else:
        own = (*module, "eval.servers.litserve_session", *common, "--port", "{port}")
        servers.append(Server("LitServe, our session", own, "/predict", lambda texts: {"text": texts[0]}, variables))
        if has_reference:
            model = str(reference.resolve() / "pytorch")
            plain = (*module, "eval.servers.litserve_pipeline", *common, "--model", model, "--port", "{port}")
            servers.append(Server("LitServe, pipeline", plain, "/predict", lambda texts: {"text": texts[0]}, variables))
    if infinity is None:
        notices.append("Infinity is left out: --infinity PYTHON names the Python of an environment with infinity-emb")
    elif has_reference:
        model = str(_for_infinity(reference / "pytorch"))
        command = (str(infinity), "-m", "infinity_emb.cli", "v2", "--model-id", model, "--port", "{port}", "--device", "cpu")
        extra = {**variables, "INFINITY_ANONYMOUS_USAGE_STATS": "0", "DO_NOT_TRACK": "1"}
        servers.append(Server("Infinity", command, "/classify", lambda texts: {"input": list(texts), "model": model}, extra))
    return servers, contenders, notices


def _for_infinity(model: Path) -> Path:
    """A folder beside the PyTorch model that Infinity takes for a classifier; it measures time, its weights do not matter."""
    folder = model.resolve().with_name("infinity")
    folder.mkdir(exist_ok=True)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config.update(architectures=["BertForSequenceClassification"], torch_dtype="float32")
    tokenizer = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    for name, content in (("config.json", config), ("tokenizer_config.json", tokenizer)):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(model.resolve() / name)
    return folder
