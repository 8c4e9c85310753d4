"""Short fits of every recommender give the numbers that they have always given.

tests/golden/short_fits.json holds NDCG@10 and the scores of ten users for six items. With fixed seeds and one thread
they are the same to 1e-6 on one machine; other processors round differently, and training amplifies that: hence the
tolerance.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys_cl.data import Split, cold_item_split, leave_last_n, synthetic
from recsys_cl.evaluation import evaluate
from recsys_cl.recommenders import create

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "short_fits.json").read_text())


@pytest.fixture(scope="module")
def splits() -> dict[str, Split]:
    data = synthetic(n_users=240, n_items=150, n_events=4_800)
    return {"synthetic": leave_last_n(data, 3, seed=0), "cold": cold_item_split(data, seed=0)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", GOLDEN)
def test_a_short_fit_gives_the_stored_numbers(name: str, splits: dict[str, Split]) -> None:
    stored, split = GOLDEN[name], splits[GOLDEN[name]["split"]]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = create(stored["model"], **stored["settings"]).fit(split)
    finally:
        torch.set_num_threads(threads)
    scores = model.score(split.test.history[np.arange(10)]).detach()
    columns = np.linspace(0, scores.shape[1] - 1, len(stored["scores"][0])).astype(int)
    torch.testing.assert_close(scores[:, columns], torch.tensor(stored["scores"]), rtol=1e-3, atol=1e-3)
    assert evaluate(model, split.test).mean("ndcg@10") == pytest.approx(stored["ndcg@10"], abs=1e-3)
