"""Static int8 quantisation: which ranges the inputs of the matrix products get.

For every matrix product the range and the smoothing of its input are chosen by what matters, the error of its output on
calibration texts: a small search over clipping ratios and SmoothQuant strengths (Xiao et al. 2023), with the weights
quantised as they will be. Smoothing costs a multiplication at run time, so it is used only where it clearly helps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from tqdm import tqdm

from training.batching import encode
from training.encoder import PassageEncoder
from training.graph import SITES, ActivationRange, FloatArray, Quantisation, encoder_weights, quantise_weight

CLIPPING = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.12)
SMOOTHING = (None, 0.3, 0.5, 0.65, 0.8)
_SMOOTHING_MUST_GAIN = 0.8  # of the output error left
_MAX_TOKENS = 6_000


def choose_ranges(
    model: PassageEncoder, tokenizer: Tokenizer, texts: Sequence[str], *, max_tokens: int, show_progress: bool = True
) -> Quantisation:
    """Choose the range of every quantised input on prepared calibration texts (a few hundred, in all languages)."""
    inputs = collect_inputs(model, tokenizer, texts, max_tokens=max_tokens)
    weights = encoder_weights(model)
    chosen: Quantisation = {}
    bar = tqdm(total=len(weights.layers) * len(SITES), desc="quantising", unit="product", disable=not show_progress)
    for index, layer in enumerate(weights.layers):
        matrices = dict(zip(SITES, (layer.qkv, layer.attention_out, layer.ffn_in, layer.ffn_out), strict=True))
        for site, weight in matrices.items():
            chosen[index, site] = search_range(inputs.pop((index, site)), weight)
            bar.update()
    bar.close()
    return chosen


def search_range(inputs: FloatArray, weight: FloatArray) -> ActivationRange:
    """The range for inputs `[M, in]` of a product with `[in, out]` that leaves the smallest squared output error."""
    wanted = inputs @ weight
    plain_error, best_plain = _best_clipping(inputs, weight, wanted, None)
    best_error, best = plain_error, best_plain
    spread_in = np.maximum(np.percentile(np.abs(inputs), 99.9, axis=0), 1e-3)
    spread_weight = np.maximum(np.abs(weight).max(axis=1), 1e-3)
    for strength in SMOOTHING:
        if strength is None:
            continue
        factor = spread_weight ** (1 - strength) / spread_in**strength
        factor = (factor / np.exp(np.mean(np.log(factor)))).astype(np.float32)
        error, candidate = _best_clipping(inputs, weight, wanted, factor)
        if error < best_error:
            best_error, best = error, candidate
    return best if best_error < _SMOOTHING_MUST_GAIN * plain_error else best_plain


def _best_clipping(
    inputs: FloatArray, weight: FloatArray, wanted: FloatArray, smoothing: FloatArray | None
) -> tuple[float, ActivationRange]:
    if smoothing is not None:
        inputs, weight = inputs * smoothing, weight / smoothing[:, None]
    values, scales = quantise_weight(weight)
    stored = values.astype(np.float32) * scales
    low, high = min(float(inputs.min()), 0.0), max(float(inputs.max()), 0.0)
    best: tuple[float, ActivationRange] | None = None
    for clipping in CLIPPING:
        chosen = affine_range(low * clipping, high * clipping, smoothing)
        error = float(np.mean(np.square(round_trip(inputs, chosen) @ stored - wanted)))
        if best is None or error < best[0]:
            best = error, chosen
    if best is None:
        raise AssertionError("no clipping was tried")
    return best


def affine_range(low: float, high: float, smoothing: FloatArray | None = None) -> ActivationRange:
    """The uint8 scale and zero point that cover `low` to `high` and hold zero exactly."""
    scale = max((high - low) / 255.0, 1e-8)
    return ActivationRange(float(np.float32(scale)), int(np.clip(round(-low / scale), 0, 255)), smoothing)


def round_trip(inputs: FloatArray, chosen: ActivationRange) -> FloatArray:
    """Already smoothed inputs after QuantizeLinear and DequantizeLinear."""
    quantised = np.clip(np.rint(inputs / np.float32(chosen.scale)) + chosen.zero_point, 0, 255)
    restored: FloatArray = ((quantised - chosen.zero_point) * np.float32(chosen.scale)).astype(np.float32)
    return restored


@torch.no_grad()
def collect_inputs(
    model: PassageEncoder, tokenizer: Tokenizer, texts: Sequence[str], *, max_tokens: int
) -> dict[tuple[int, str], NDArray[np.float32]]:
    """The inputs `[M, in]` of each layer's four matrix products, over the first tokens of the texts, unpadded."""
    kept: dict[tuple[int, str], list[Tensor]] = {}
    handles = []

    def remember(key: tuple[int, str]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            kept.setdefault(key, []).append(arguments[0].reshape(-1, arguments[0].shape[-1]).clone())

        return hook

    encoder: Any = model.encoder
    layers = encoder.encoder.layer
    for index, layer in enumerate(layers):
        modules = (
            layer.attention.self.query,
            layer.attention.output.dense,
            layer.intermediate.dense,
            layer.output.dense,
        )
        for site, module in zip(SITES, modules, strict=True):
            handles.append(module.register_forward_pre_hook(remember((index, site))))
    try:
        model.eval()
        seen = 0
        for ids in encode(tokenizer, texts, max_tokens):
            row = torch.tensor([ids])
            model(row, torch.ones_like(row))
            seen += len(ids)
            if seen >= _MAX_TOKENS:
                break
    finally:
        for handle in handles:
            handle.remove()
    return {key: torch.cat(rows).numpy() for key, rows in kept.items()}
