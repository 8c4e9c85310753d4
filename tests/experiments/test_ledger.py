"""Runs of the claims ledger: both arms are fitted alike, tested on the right unit, and one claim can be run again."""

import json
from collections.abc import Iterator
from pathlib import Path

import arms
import claim
import ledger
import numpy as np
import pytest
from common import FOLDS, REPETITIONS, RESULTS, Parts, item_folds, paired_by_fold, record

from recsys_cl.book.claims import Claim, comparisons, read_claims
from recsys_cl.book.evidence import Comparison, difference_of, read_effect
from recsys_cl.data import Split, leave_one_out, synthetic
from recsys_cl.errors import InputError
from recsys_cl.evaluation import Evaluation, evaluate, pool
from recsys_cl.recommenders import create

CLAIMS = read_claims(ledger.CLAIMS)
SMALL = """
- id: order
  claim: EASE ranks better than popularity
  sources: [000 §1]
  topic: training
  chapters: [2]
  verdict: depends
  evidence:
    - {under: tiny, arms: [ease, popularity], differ: method}
    - {under: tiny, arms: [ease-recency, "ease:l2=1000.0"], differ: decay, group: users with < 15 training events}
"""


def tiny() -> Iterator[tuple[str, Split, int]]:
    for draw in range(2):
        yield f"draw {draw}", leave_one_out(synthetic(100, 80, 1_500, seed=draw), seed=draw), draw


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Claim:
    monkeypatch.setattr(ledger, "PROTOCOLS", {"tiny": ledger.Protocol(tiny)})
    (tmp_path / "claims.yml").write_text(SMALL)
    return read_claims(tmp_path / "claims.yml")[0]


def test_a_run_stores_settings_means_and_tests(small: Claim, tmp_path: Path) -> None:
    found = ledger.ledger("tiny", [small])(Parts(tmp_path / "parts", "ledger-tiny"))
    assert found["protocol"]["unit"] == "users"
    expected = [evaluate(create("ease").fit(split), split.test) for _, split, _ in tiny()]
    assert found["arms"]["ease"]["runs"]["ndcg@10"] == [one.mean() for one in expected]
    assert found["arms"]["ease"]["settings"] == {"l2": 100.0, "decay": 1.0}
    rival = [evaluate(create("popularity").fit(split), split.test) for _, split, _ in tiny()]
    first, second = found["comparisons"].values()
    assert first["difference"] == pytest.approx(pool(expected).mean() - pool(rival).mean())
    assert first["units"] == 100
    assert second["units"] < 100  # the group
    (tmp_path / "ledger-tiny.json").write_text(json.dumps({"result": found}))
    assert all(read_effect(one, tmp_path).low <= read_effect(one, tmp_path).high for one in small.evidence)


def test_folds_of_items_are_disjoint_and_cover_all() -> None:
    data = synthetic(100, 80, 1_500)
    candidates = [split.test.candidates for _, split, _ in item_folds(data)][:FOLDS]
    together = np.concatenate([one for one in candidates if one is not None])
    assert len(together) == len(set(together.tolist())) == len(np.unique(data.item)) // FOLDS * FOLDS


def test_folds_are_the_unit_of_the_test() -> None:
    def with_means(means: list[float]) -> list[Evaluation]:
        return [Evaluation(np.arange(4), {"ndcg@10": np.full(4, mean)}) for mean in means]

    values = np.linspace(0.01, 0.03, FOLDS * REPETITIONS)
    found = paired_by_fold(with_means((0.3 + values).tolist()), with_means([0.3] * len(values)))
    error = values.std(ddof=1) / np.sqrt(FOLDS)
    assert found.difference == pytest.approx(0.02)
    assert found.high - found.difference == pytest.approx(2.262157 * error, rel=1e-5)  # Student's t, 9 degrees


def test_a_group_and_a_second_measure_hold_for_folds_as_for_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten folds in which only the first of two queries belongs to the group."""
    monkeypatch.setattr(ledger, "GROUPS", {"first": lambda split: np.array([True, False])})
    tests = [Evaluation(np.arange(2), {"a": np.array([k / 10, 9.0]), "b": np.zeros(2)}) for k in range(FOLDS)]
    one = Comparison("cold-items", ("arm", "arm"), "a", "b", "first")
    splits = [(str(fold), None, 0) for fold in range(FOLDS)]
    found = ledger.test(one, {"arm": {"test": tests}}, splits)  # type: ignore[arg-type]
    assert found["difference"] == pytest.approx(0.45)
    assert found["units"] == FOLDS


@pytest.mark.parametrize("name", sorted(ledger.ARMS))
def test_every_arm_is_a_model(name: str) -> None:
    assert record(ledger.spec(name))["settings"]


@pytest.mark.parametrize("method", ledger.ADVERSARIES)
def test_a_control_differs_in_its_negatives_alone(method: str) -> None:
    pair = [record(ledger.spec(name)) for name in (method, f"{method}, no adversary")]
    assert difference_of(*pair) == {"sampler"}


def test_the_control_of_apr_has_no_attack() -> None:
    assert difference_of(record(ledger.spec("APR")), record(ledger.spec("APR, no adversary"))) == {"attack"}


@pytest.mark.parametrize("name", sorted(arms.ARMS))
def test_stored_arms_are_those_of_the_experiment(name: str) -> None:
    stored = json.loads((RESULTS / f"{name}.json").read_text())["result"]["arms"]
    versions = {one.pop("version") for one in stored.values()}
    assert len(versions) == 1
    now = json.loads(json.dumps(arms.records(name)))
    assert stored == {arm: {key: one[key] for key in one if key != "version"} for arm, one in now.items()}


@pytest.mark.parametrize("protocol", sorted(ledger.PROTOCOLS))
def test_stored_runs_have_all_comparisons_of_the_ledger(protocol: str) -> None:
    result = json.loads((RESULTS / f"ledger-{protocol}.json").read_text())["result"]
    wanted = [*comparisons(CLAIMS), *ledger.CHAPTERS]
    assert {one.key for one in wanted if one.under == protocol} == set(result["comparisons"])
    for name, stored in result["arms"].items():
        assert stored["spec"] == ledger.spec(name)


def test_what_needs_no_training_comes_out_again() -> None:
    """The first draw and fold of closed forms, from the data to the stored mean."""
    for protocol, name in (("last-ten", "ease-recency"), ("cold-items", "minilm")):
        stored = json.loads((RESULTS / f"ledger-{protocol}.json").read_text())["result"]["arms"][name]
        _, split, _ = next(ledger.PROTOCOLS[protocol].splits())
        assert evaluate(create(name).fit(split), split.test).mean() == pytest.approx(
            stored["runs"]["ndcg@10"][0], abs=0.002
        )


# one claim again


def test_a_claim_is_run_again(small: Claim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "PROTOCOLS", ledger.PROTOCOLS)
    monkeypatch.setattr(claim, "EXPERIMENTS", {"ledger-tiny": None})
    results = claim.run_again(small, tmp_path / "again")
    assert read_effect(small.evidence[0], results).side == "claimed"
    assert claim.cost(small, results) > 0


def test_claims_that_cannot_be_run_are_named() -> None:
    with pytest.raises(InputError, match="unknown claim 'beat-pointwise', did you mean 'beats-pointwise'"):
        claim.claim_of("beat-pointwise")
    with pytest.raises(InputError, match="'satisfaction' has no run: People who use"):
        claim.claim_of("satisfaction")
    with pytest.raises(InputError, match=r"'claims-latency' measures time; run it by: python benchmarks/latency.py"):
        claim.run_again(claim.claim_of("real-time"), Path("nowhere"))


@pytest.mark.parametrize("name", [one.id for one in CLAIMS if one.evidence])
def test_the_cost_of_each_claim_is_known(name: str) -> None:
    assert claim.cost(claim.claim_of(name)) > 0
