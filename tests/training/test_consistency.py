"""Cross-lingual consistency: its formula, which pairs take part and when, and that it brings the sides together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from models.errors import InputError
from models.translations import Translation
from tests.conftest import tiny_bert
from training.ablation.consistency import PAIRS_PER_STEP, Consistency, divergence, usable_pairs
from training.encoder import PassageEncoder
from training.finetune import FineTuneSettings, fine_tune
from training.rows import TrainingRow

PAIRS = [(f"the village {at}", f"القرية {at}") for at in range(6)]


def consistency(model: PassageEncoder, tokenizer: Tokenizer, pairs: list = PAIRS, weight: float = 1.0) -> Consistency:
    return Consistency(model, tokenizer, pairs, weight=weight, max_tokens=48, seed=3)


def network(dropout: float = 0.0) -> PassageEncoder:
    torch.manual_seed(0)
    encoder = tiny_bert(120, layers=1)
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    return PassageEncoder(encoder, 3, dropout=dropout)


def test_the_divergence_is_the_symmetric_one_of_kullback_and_leibler() -> None:
    first, second = torch.tensor([[-1.0, 0.5, 3.0]]), torch.tensor([[2.0, 0.5, 2.0]])
    p, q = (torch.distributions.Bernoulli(logits=logits) for logits in (first, second))
    expected = torch.distributions.kl_divergence(p, q) + torch.distributions.kl_divergence(q, p)
    assert torch.allclose(divergence(first, second), expected, atol=1e-6)


def test_pairs_with_a_side_kept_apart_are_not_used() -> None:
    translations = [Translation(str(at), en, ar) for at, (en, ar) in enumerate(PAIRS)]
    assert usable_pairs(translations, {PAIRS[1][0], PAIRS[4][1]}) == [PAIRS[at] for at in (0, 2, 3, 5)]


def test_every_pair_has_its_turn_before_any_comes_again(tiny_tokenizer: Tokenizer) -> None:
    loss = consistency(network(), tiny_tokenizer)
    turns = [loss._at(turn) for turn in range(18)]
    assert [sorted(turns[start : start + 6]) for start in (0, 6, 12)] == [list(range(6))] * 3
    assert turns[:6] != turns[6:12]
    assert turns == [consistency(network(), tiny_tokenizer)._at(turn) for turn in range(18)]


def test_the_loss_is_that_of_the_pairs_whose_turn_it_is(tiny_tokenizer: Tokenizer) -> None:
    model = network().eval()
    loss = consistency(model, tiny_tokenizer, weight=2.5)

    def logits(side: str) -> torch.Tensor:
        ids = torch.tensor([tiny_tokenizer.encode(side).ids])
        return model(ids, torch.ones_like(ids))

    turns = [loss._at(turn) for turn in range(PAIRS_PER_STEP, 2 * PAIRS_PER_STEP)]
    expected = torch.cat([divergence(*map(logits, PAIRS[turn])) for turn in turns]).mean().item()
    assert loss(1).item() == pytest.approx(2.5 * expected, rel=1e-4)
    assert loss(0).item() != pytest.approx(2.5 * expected, rel=1e-4)


def test_each_side_learns_from_the_other_as_it_stands() -> None:
    first, second = torch.tensor([[0.5]], requires_grad=True), torch.tensor([[-1.0]], requires_grad=True)
    divergence(first, second).sum().backward()
    gap = torch.sigmoid(first) - torch.sigmoid(second)  # of binary cross-entropy with the other side as its target
    assert first.grad.item() == pytest.approx(gap.item(), rel=1e-5)
    assert second.grad.item() == pytest.approx(-gap.item(), rel=1e-5)


def test_it_brings_the_sides_together(tiny_tokenizer: Tokenizer) -> None:
    model = network()
    loss = consistency(model, tiny_tokenizer)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    before = sum(loss(step).item() for step in range(3))
    for step in range(30):
        optimiser.zero_grad()
        loss(step).backward()
        optimiser.step()
    assert sum(loss(step).item() for step in range(3)) < 0.2 * before


def test_a_run_goes_on_as_it_would_have_gone_and_with_the_same_translations_only(
    tiny_tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [TrainingRow(f"d{i}#0", f"d{i}", "", "en", f"the village {i}", (i % 2, 0, 1), False) for i in range(24)]
    settings = FineTuneSettings(epochs=1, batch_size=4, precision="float32", max_tokens=48, checkpoint_every_steps=1)

    def train(pairs: list | None, folder: Path) -> float:
        model = network(dropout=0.1)
        further = consistency(model, tiny_tokenizer, pairs) if pairs else None
        found = fine_tune(
            model, tiny_tokenizer, rows[:16], rows[16:], settings,
            checkpoint_directory=folder, auxiliary_loss=further, show_progress=False,
        )  # fmt: skip
        return found[0].train_loss

    alone, together = train(None, tmp_path / "alone"), train(PAIRS, tmp_path / "together")
    assert together > alone
    original, steps = torch.optim.AdamW.step, []

    def failing(self, *args, **kwargs):
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", failing)
        with pytest.raises(KeyboardInterrupt):
            train(PAIRS, tmp_path / "broken")
    assert train(PAIRS, tmp_path / "broken") == pytest.approx(together, rel=1e-6)
    for other in (None, PAIRS[:5]):
        with pytest.raises(InputError, match="other settings or rows"):
            train(other, tmp_path / "broken")
