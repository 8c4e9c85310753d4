"""A sequential recommender that speaks of items nobody has chosen yet."""

from pathlib import Path

import pytest
import torch

from recsys_cl.data import cold_item_split, synthetic
from recsys_cl.recommenders import ColdSequential, load_recommender
from recsys_cl.recommenders.cold_sequential import impute


def test_imputation_is_least_squares_and_keeps_what_is_known() -> None:
    generator = torch.Generator().manual_seed(0)
    content = torch.randn(3, 40, generator=generator)
    scores = 2.0 + 3.0 * content + 0.1 * torch.randn(3, 40, generator=generator)
    warm = torch.arange(40) < 30
    hidden = torch.where(warm, scores, 99.0)  # what the model says of unseen items does not matter
    filled = impute(hidden, content, warm)
    assert torch.equal(filled[:, warm], scores[:, warm])
    for row in range(3):
        design = torch.stack([torch.ones(30), content[row, warm]], dim=1)
        weights = torch.linalg.lstsq(design, scores[row, warm]).solution
        torch.testing.assert_close(
            filled[row, ~warm], weights[0] + weights[1] * content[row, ~warm], atol=1e-4, rtol=1e-4
        )


def test_unseen_items_keep_the_order_of_their_content_even_where_it_misleads() -> None:
    content = torch.tensor([[0.0, 1.0, 0.2, 0.8]])
    filled = impute(torch.tensor([[5.0, 1.0, 0.0, 0.0]]), content, torch.tensor([True, True, False, False]))
    assert filled[0, 3] > filled[0, 2]  # the slope on seen items is negative; it is not used


def test_the_order_survives_single_precision_whatever_the_scale() -> None:
    content = torch.linspace(-0.1, 0.1, 300)[None]
    scores = 40.0 - 5.0 * content  # the two disagree, so that the slope is at its least
    filled = impute(scores, content, torch.arange(300) < 150)
    assert (filled[0, 150:].diff() > 0).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*texts are longer than.*")
def test_cold_items_are_ranked_by_tuned_texts_and_survive_saving(tmp_path: Path) -> None:
    data = synthetic(120, 64, 1200, seed=0)
    split = cold_item_split(data, seed=0)
    model = ColdSequential(dim=16, blocks=1, epochs=1, length=8).fit(split)
    scores = model.score(split.test.history)
    content = model.content.score(split.test.history)
    cold = torch.from_numpy(split.test.candidates)
    alike = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(scores[:, cold], content[:, cold], strict=True)]
    assert min(alike) > 0.999  # the same order, on the scale of the scores
    model.save(tmp_path)
    torch.testing.assert_close(load_recommender(tmp_path).score(split.test.history), scores)
    assert model.score_text("words").shape == (1, data.n_items)
