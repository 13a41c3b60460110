"""Fine-tuning: the base encoder learns the labels of the training rows.

Multi-label focal loss, the same loss between the sides of contrast pairs, AdamW with a linear warm-up and decay,
batches of similar length padded to their own longest row, bfloat16 autocast where this processor is faster with it, an
exponential moving average of the weights, and early stopping on the average precision on validation rows. Every checkpoint
holds all that is needed to go on exactly where it was written: weights, average, optimiser, schedule, random state,
place in the epoch.

The word embedding is frozen: its rows come from 4-bit blocks and go to the bundle as such, without loss.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from tokenizers import Tokenizer
from torch import Tensor, nn
from tqdm import tqdm

from models.errors import InputError
from training.attention import CPU_ATTENTION
from training.batching import batches, contrast_partners, encode, pad
from training.encoder import PassageEncoder
from training.losses import AuxiliaryLoss, Loss, focal, pair_loss
from training.noise import Noise
from training.rows import TrainingRow, targets

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuneSettings:
    """How to fine-tune. Rates are per step.

    `unsure_weight` scales the loss of rows whose reader doubted them, `pair_weight` the loss between sides of contrast pairs.
    `epoch_by` names the figure on validation rows by which the epoch is chosen: average precision where thresholds are found
    afterwards, macro F1 where they stay one half.
    """

    epochs: int = 5
    batch_size: int = 16
    learning_rate: float = 8e-5
    head_learning_rate: float = 1e-3
    layer_decay: float = 0.95
    weight_decay: float = 0.01
    warmup_share: float = 0.08
    dropout: float = 0.1
    max_tokens: int = 256
    unsure_weight: float = 0.5
    average_decay: float = 0.998
    pair_weight: float = 1.0
    epoch_by: Literal["average_precision", "macro_f1"] = "average_precision"
    patience: int = 2
    seed: int = 1
    checkpoint_every_steps: int = 200
    precision: str = "auto"


@dataclass(frozen=True, slots=True)
class EpochResult:
    """What one epoch came to: mean training loss, and figures of the averaged weights on validation rows.

    Average precision and F1 (at probability one half) are means over labels.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    validation_average_precision: float
    validation_macro_f1: float
    seconds: float


def fine_tune(
    model: PassageEncoder,
    tokenizer: Tokenizer,
    train: Sequence[TrainingRow],
    validation: Sequence[TrainingRow],
    settings: FineTuneSettings,
    *,
    checkpoint_directory: Path,
    noise: Noise | None = None,
    loss: Loss = focal,
    auxiliary_loss: AuxiliaryLoss | None = None,
    show_progress: bool = True,
) -> list[EpochResult]:
    """Train `model` in place and leave it with the averaged weights of its best epoch; `noise` falls on training rows alone.

    `auxiliary_loss` is added at every step as it comes. Goes on from the newest checkpoint in `checkpoint_directory` where
    there is one of the same settings and rows; raises InputError where there is one of other settings. Validation rows only
    choose the epoch.
    """
    checkpoint_directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    torch.set_flush_denormal(True)
    model.encoder.get_input_embeddings().weight.requires_grad_(False)
    model.encoder.set_attn_implementation(CPU_ATTENTION)
    weights = torch.tensor([settings.unsure_weight if row.unsure else 1.0 for row in train])
    wanted = torch.from_numpy(targets(train))
    partners = contrast_partners(train) if settings.pair_weight else {}
    steps_per_epoch = math.ceil(len(train) / settings.batch_size)
    total_steps = steps_per_epoch * settings.epochs
    optimiser = torch.optim.AdamW(_parameter_groups(model, settings), weight_decay=settings.weight_decay, fused=True)
    warmup_steps = max(1, int(total_steps * settings.warmup_share))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min((step + 1) / warmup_steps, max(0.0, (total_steps - step) / (total_steps - warmup_steps + 1))),
    )
    average = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
    state = _RunState(
        fingerprint=_fingerprint(settings, noise, loss, auxiliary_loss, train, validation, model),
        bfloat16=settings.precision == "bfloat16" or (settings.precision == "auto" and bfloat16_is_faster()),
    )
    checkpoint = checkpoint_directory / "last.pt"
    best_path = checkpoint_directory / "best.pt"
    if checkpoint.is_file():
        _restore(checkpoint, state, model, optimiser, schedule, average)
        logger.info("going on from step %d", state.step)
    logger.info("training %d rows, %d steps, bfloat16=%s", len(train), total_steps, state.bfloat16)

    bar = tqdm(total=total_steps, initial=state.step, unit="step", disable=not show_progress, dynamic_ncols=True)
    while state.step < total_steps and state.epochs_without_gain < settings.patience:
        epoch = state.step // steps_per_epoch
        model.train()
        started = time.monotonic()
        epoch_seed = settings.seed * 1_000 + epoch
        texts = noise.disturb(train, seed=epoch_seed) if noise else [row.text for row in train]
        encoded = encode(tokenizer, texts, settings.max_tokens)
        lengths = [len(ids) for ids in encoded]
        order = list(batches(lengths, settings.batch_size, seed=epoch_seed, partners=partners))
        for batch in order[state.step % steps_per_epoch :]:
            ids, mask = pad([encoded[index] for index in batch], int(model.encoder.config.pad_token_id))
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=state.bfloat16):
                logits = model(ids, mask)
            losses = loss(logits, wanted[batch])
            mean_loss = (losses.mean(dim=1) * weights[batch]).sum() / weights[batch].sum()
            if settings.pair_weight:
                mean_loss = mean_loss + settings.pair_weight * pair_loss(logits, wanted[batch], batch, partners, loss)
            if auxiliary_loss is not None:
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=state.bfloat16):
                    mean_loss = mean_loss + auxiliary_loss(state.step)
            mean_loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad(set_to_none=True)
            state.step += 1
            state.loss_sum += float(mean_loss.detach())
            decay = min(settings.average_decay, (1 + state.step) / (10 + state.step))
            _average(average, model, decay)
            bar.update()
            bar.set_postfix(epoch=epoch + 1, loss=f"{state.loss_sum / (state.step % steps_per_epoch or steps_per_epoch):.4f}")
            if state.step % settings.checkpoint_every_steps == 0 and state.step % steps_per_epoch:
                _save(checkpoint, state, model, optimiser, schedule, average)
        raw = {name: value.detach().clone() for name, value in model.named_parameters() if name in average}
        _load(model, average)
        logits_np = predict_logits(
            model,
            tokenizer,
            [row.text for row in validation],
            max_tokens=settings.max_tokens,
            bfloat16=state.bfloat16,
        )
        result = EpochResult(
            epoch=epoch + 1,
            train_loss=state.loss_sum / steps_per_epoch,
            validation_loss=_loss(logits_np, targets(validation)),
            validation_average_precision=average_precision(logits_np, targets(validation)),
            validation_macro_f1=macro_f1(logits_np, targets(validation)),
            seconds=time.monotonic() - started,
        )
        state.history.append(asdict(result))
        state.loss_sum = 0.0
        figures = {"average_precision": result.validation_average_precision, "macro_f1": result.validation_macro_f1}
        if figures[settings.epoch_by] > state.best:
            state.best, state.epochs_without_gain = figures[settings.epoch_by], 0
            _write(best_path, average)
        else:
            state.epochs_without_gain += 1
        _load(model, raw)
        _save(checkpoint, state, model, optimiser, schedule, average)
        logger.info("%s", json.dumps(asdict(result)))
        bar.write(
            f"epoch {result.epoch}: loss {result.train_loss:.4f}, validation loss {result.validation_loss:.4f}, "
            f"average precision {result.validation_average_precision:.4f}, macro F1 {result.validation_macro_f1:.4f}, "
            f"{result.seconds:.0f} s",
            file=sys.stderr,
        )
    bar.close()
    _load(model, torch.load(best_path, weights_only=True))
    model.eval()
    return [EpochResult(**entry) for entry in state.history]


@torch.no_grad()
def predict_logits(
    model: PassageEncoder,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    max_tokens: int,
    batch_size: int = 32,
    bfloat16: bool = False,
) -> NDArray[np.float32]:
    """Logits `[N, L]` of prepared texts, in their order."""
    model.eval()
    encoded = encode(tokenizer, texts, max_tokens)
    order = sorted(range(len(texts)), key=lambda index: len(encoded[index]))
    logits = np.zeros((len(texts), model.head.out_features), dtype=np.float32)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        ids, mask = pad([encoded[index] for index in batch], int(model.encoder.config.pad_token_id))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            logits[batch] = model(ids, mask).numpy()
    return logits


def macro_f1(logits: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """Mean over labels of the F1 at probability one half; a label with no positives counts only if predicted."""
    predicted, actual = logits > 0, wanted > 0.5
    hits = (predicted & actual).sum(axis=0)
    total = predicted.sum(axis=0) + actual.sum(axis=0)
    return float(np.mean(np.where(total > 0, 2 * hits / np.maximum(total, 1), 1.0)))


def average_precision(logits: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """Mean over the labels that have positives of the area under the precision-recall curve; 0 where none has."""
    actual = wanted > 0.5
    present = actual.any(axis=0)
    if not present.any():
        return 0.0
    return float(average_precision_score(actual[:, present], logits[:, present], average="macro"))


def bfloat16_is_faster() -> bool:
    """Whether this processor multiplies matrices of the encoder's size faster in bfloat16 than in float32."""
    seconds = {}
    generator = torch.Generator().manual_seed(0)  # its own: a run that goes on must draw what it would have drawn
    for dtype in (torch.float32, torch.bfloat16):
        left = torch.randn(512, 384, generator=generator).to(dtype)
        right = torch.randn(384, 1536, generator=generator).to(dtype)
        left @ right
        started = time.perf_counter()
        for _ in range(10):
            left @ right
        seconds[dtype] = time.perf_counter() - started
    return seconds[torch.bfloat16] < seconds[torch.float32]


def _loss(logits: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    return float(nn.functional.binary_cross_entropy_with_logits(torch.from_numpy(logits), torch.from_numpy(wanted)))


def _parameter_groups(model: PassageEncoder, settings: FineTuneSettings) -> list[dict[str, Any]]:
    """Lower layers hold more of what the base knows: each learns `layer_decay` times as fast as the one above."""
    layers = int(model.encoder.config.num_hidden_layers)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if not name.startswith("encoder."):
            rate = settings.head_learning_rate
        elif ".layer." in name:
            depth = int(name.split(".layer.")[1].split(".")[0])
            rate = settings.learning_rate * settings.layer_decay ** (layers - 1 - depth)
        else:
            rate = settings.learning_rate * settings.layer_decay**layers
        groups.setdefault((rate, parameter.ndim < 2), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": 0.0 if no_decay else settings.weight_decay}
        for (rate, no_decay), parameters in groups.items()
    ]


@torch.no_grad()
def _average(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    current: list[Tensor] = [value for value in model.parameters() if value.requires_grad]
    torch._foreach_lerp_(list(average.values()), current, 1 - decay)


@torch.no_grad()
def _load(model: nn.Module, values: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        if name in values:
            parameter.copy_(values[name])


@dataclass(slots=True)
class _RunState:
    fingerprint: str
    bfloat16: bool
    step: int = 0
    loss_sum: float = 0.0
    best: float = -1.0
    epochs_without_gain: int = 0
    history: list[dict[str, Any]] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.history = self.history or []


def _fingerprint(
    settings: FineTuneSettings,
    noise: Noise | None,
    loss: Loss,
    auxiliary_loss: AuxiliaryLoss | None,
    train: Sequence[TrainingRow],
    validation: Sequence[TrainingRow],
    start: nn.Module,
) -> str:
    kept = {key: value for key, value in asdict(settings).items() if key != "checkpoint_every_steps"}
    kept["noise"] = asdict(noise) if noise else None
    kept["loss"] = loss.__name__
    if auxiliary_loss is not None:
        kept["auxiliary_loss"] = auxiliary_loss.name
    weights = hashlib.sha256()
    for name, value in start.state_dict().items():
        weights.update(name.encode())
        weights.update(value.detach().contiguous().numpy().tobytes())
    kept["start"] = weights.hexdigest()[:16]
    return json.dumps(kept, sort_keys=True) + f"|{len(train)}|{hash_rows(train)}|{hash_rows(validation)}"


def hash_rows(rows: Sequence[TrainingRow]) -> str:
    """A digest of ids, texts and targets, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr((row.id, row.text, row.targets, row.unsure)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def _save(path: Path, state: _RunState, model: nn.Module, optimiser: Any, schedule: Any, average: Any) -> None:
    _write(
        path,
        {
            "state": asdict(state),
            "model": {name: value for name, value in model.named_parameters() if value.requires_grad},
            "optimiser": optimiser.state_dict(),
            "schedule": schedule.state_dict(),
            "average": average,
            "random": torch.get_rng_state(),
        },
    )


def _write(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_suffix(".part")
    torch.save(content, partial)
    partial.replace(path)


def _restore(path: Path, state: _RunState, model: nn.Module, optimiser: Any, schedule: Any, average: Any) -> None:
    saved = torch.load(path, weights_only=True)
    if saved["state"]["fingerprint"] != state.fingerprint:
        raise InputError(f"{path.parent} holds a checkpoint of other settings or rows; remove the folder or choose another")
    for name, value in saved["state"].items():
        setattr(state, name, value)
    _load(model, saved["model"])
    optimiser.load_state_dict(saved["optimiser"])
    schedule.load_state_dict(saved["schedule"])
    for name, value in saved["average"].items():
        average[name].copy_(value)
    torch.set_rng_state(saved["random"])
