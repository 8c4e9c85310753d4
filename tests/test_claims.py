"""The claims ledger: verdicts follow from stored runs, nothing is omitted, and the chapters quote it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest

from recsys_cl.book.claims import UNJUDGED, VERDICTS, Claim, judge, kind_of, read_claims, verdict_from
from recsys_cl.book.claims_table import claims_table
from recsys_cl.book.evidence import Effect, read_effect, result_of
from recsys_cl.data import leave_last_n, load_movielens
from recsys_cl.errors import InputError

BOOK = Path(__file__).parents[1] / "book"
LEDGER, RESULTS = BOOK / "claims.yml", BOOK / "results"
CLAIMS = read_claims(LEDGER)
CHAPTERS = {int(path.name[:2]): path for path in BOOK.glob("[0-9]*.ipynb")}

PROMISED = {
    "contrastive training beats pointwise supervision": "beats-pointwise",
    "contrastive training beats the zero-shot language model": "beats-zero-shot",
    "helps new items": "new-items",
    "helps new users": "new-users",
    "is robust to noise": "robust-to-noise",
    "raises diversity": "diversity",
    "is more interpretable": "interpretable",
    "needs no labels": "no-labels",
    "embeddings of language models capture more than TF-IDF": "llm-over-tfidf",
    "masked or causal": "masked-training",
    "context helps": "context",
    "LoRA is enough": "lora-is-enough",
    "rule for the learning rate": "learning-rate",
    "samples of GANs help": "gan-generalisation",
    "adversarial training is robust": "adversarial-robust",
    "adversarial training reduces overfitting": "adversarial-prevents-overfitting",
    "adversarial training causes overfitting": "adversarial-overfits",
    "related items score above unrelated ones": "related-above-unrelated",
    "most useful on small data": "small-data",
    "self-supervision generalises to new users": "generalises-new-users",
    "embedding models are explainable": "explainable-embeddings",
    "a light model gives real time": "real-time",
    "text cleaning helps a language model": "text-cleaning",
    "conversion": "conversion",
    "watch time": "watch-time",
    "satisfaction": "satisfaction",
    "tracks changing interests": "changing-interests",
    "fake accounts are found": "fake-accounts",
    "people are recommended to people": "recommends-people",
    "generalises across data sets": "generalises-datasets",
    "bias and fairness": "fairness",
    "privacy leaks and its safeguards": "privacy",
    "pruning, quantisation, scaling, monitoring": "serving",
    "many modalities": "many-modalities",
    "transfer between domains": "transfer",
    "depends on the quality of the data": "data-quality",
    "depends on the quality of the model": "model-quality",
    "depends on the distribution of the data": "data-distribution",
    "neural beats traditional": "neural-beats-traditional",
    "softmax over a perceptron of the behaviour": "softmax-mlp",
    "generates content": "content-generation",
    "weak outside its domain": "general-outside-domain",
    "costs storage": "storage-cost",
    "causal analysis": "causal",
    "active learning and bandits": "active-learning",
    "assistants": "assistants",
    "90 % accuracy": "accuracy-90",
}

each_claim = pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
each_chapter = pytest.mark.parametrize("number", sorted(CHAPTERS))

ENTRY = """
- id: wins
  claim: A is better than B
  sources: [000 §1]
  topic: training
  chapters: [5]
  verdict: holds on MovieLens-100K
  evidence:
    - {under: last-ten, arms: [a, b], differ: loss}
"""
TEST = {"difference": 0.02, "low": 0.01, "high": 0.03, "p_value": 0.004, "units": 943}


def arm(**settings: Any) -> dict[str, Any]:
    return {"recommender": "TwoTower", "settings": {"loss": "info-nce", "dim": 64} | settings, "version": "1.0"}


def run_of(**changes: Any) -> dict[str, Any]:
    """A stored run of one comparison, with changes."""
    return {
        "protocol": {"data": "ml-100k", "split": "leave-last-n", "unit": "users"},
        "arms": {"a": arm(), "b": arm(**{"loss": "triplet", "loss.margin": 0.2})},
        "comparisons": {"a minus b; ndcg@10": TEST},
    } | changes


def write_run(folder: Path, result: dict[str, Any], name: str = "ledger-last-ten") -> None:
    (folder / f"{name}.json").write_text(json.dumps({"command": f"python experiments/run.py {name}", "result": result}))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A ledger of one claim and its run."""
    (tmp_path / "claims.yml").write_text(ENTRY)
    write_run(tmp_path, run_of())
    return tmp_path


def shown(folder: Path) -> str:
    return claims_table(path=folder / "claims.yml", folder=folder)._repr_html_()


def edited(folder: Path, old: str, new: str) -> None:
    file = folder / "claims.yml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


EVIDENCE = {"under": "last-ten", "arms": ["a", "b"], "differ": "loss"}


# the ledger of the book


def test_verdicts_follow_from_the_stored_runs() -> None:
    for judged in judge(CLAIMS, RESULTS):
        claim = judged.claim
        assert bool(judged.effects) == (claim.verdict not in UNJUDGED and claim.argument is None)


@each_claim
def test_the_runs_exist(claim: Claim) -> None:
    assert all((RESULTS / f"{run}.json").is_file() for run in claim.runs)


@each_claim
def test_sides_agree_with_the_means_of_the_arms(claim: Claim) -> None:
    """A pair named in the wrong order would turn the sign of a claim."""
    for evidence in claim.evidence:
        if "arms" in evidence and "group" not in evidence:
            runs = json.loads((RESULTS / f"{result_of(evidence)}.json").read_text())["result"]["arms"]
            measure = evidence.get("measure", "ndcg@10")
            measures = (measure, evidence.get("rival_measure", measure))
            means = [runs[name]["runs"][of] for name, of in zip(evidence["arms"], measures, strict=True)]
            effect = read_effect(evidence, RESULTS)
            assert effect.low <= sum(means[0]) / len(means[0]) - sum(means[1]) / len(means[1]) <= effect.high


@pytest.mark.parametrize("promise", PROMISED)
def test_no_promise_of_the_sources_is_omitted(promise: str) -> None:
    assert PROMISED[promise] in {claim.id for claim in CLAIMS}


@each_chapter
def test_every_chapter_quotes_its_part_of_the_ledger(number: int) -> None:
    cells = nbformat.read(CHAPTERS[number], as_version=4).cells
    assert any(cell.cell_type == "code" and f"claims_table(chapter={number})" in cell.source for cell in cells)
    assert any(number in claim.chapters for claim in CLAIMS)


@each_claim
def test_chapters_and_sections_exist(claim: Claim) -> None:
    assert set(claim.chapters) <= set(CHAPTERS)
    if claim.argument:
        text = CHAPTERS[claim.argument["chapter"]].read_text()
        assert re.search(rf'"#+ {re.escape(claim.argument["section"])}(\\n)?"', text), claim.argument


@each_claim
def test_numbers_of_runs_are_not_written_by_hand(claim: Claim) -> None:
    assert not re.search(r"(?<![§\d])\d*\.\d|\d %", claim.remark)


def test_a_changed_sign_in_a_real_run_contradicts_its_claims(tmp_path: Path) -> None:
    shutil.copytree(RESULTS, tmp_path / "results")
    file = tmp_path / "results" / "claims-overfitting.json"
    run = json.loads(file.read_text())
    test = run["result"]["paired"]["loss"]["APR's settings, no adversary"]
    test |= {key: -test[key] for key in ("difference", "low", "high")}
    file.write_text(json.dumps(run))
    with pytest.raises(
        InputError, match=r"entry 'adversarial-prevents-overfitting': .* does not follow; write 'depends'"
    ):
        judge(CLAIMS, tmp_path / "results")


def test_numbers_of_the_opening_page_are_those_of_the_runs() -> None:
    page = (BOOK / "claims.ipynb").read_text()
    arms = json.loads((RESULTS / "ledger-last-ten.json").read_text())["result"]["arms"]
    towers, linear = (np.mean(arms[name]["runs"]["ndcg@10"]) for name in ("two-tower", "ease-recency"))
    assert "by nine per cent of the best of those tested" in page
    assert round(100 * (towers / linear - 1)) == 9
    draws = json.loads((RESULTS / "adversarial-negatives.json").read_text())["result"]["rows"]["generator + filter"]
    assert "takes back 98 of 100" in page
    assert round(100 * np.mean([draw["history"][-1]["share_filtered"] for draw in draws])) == 98
    chose, tested = (leave_last_n(load_movielens(), seed=draw) for draw in (0, 1))
    events = [
        set(zip(one.user.tolist(), one.target.items[one.target.start].tolist(), strict=True))
        for one in (chose.validation, tested.test)
    ]
    assert "About four per cent of the test events of the second draw" in page
    assert round(100 * len(events[0] & events[1]) / len(events[1])) == 4


# one rule


@pytest.mark.parametrize(
    ("effects", "verdict"),
    [
        ([("ml-100k", 1, 2), ("ml-100k", 1, 3)], "holds on MovieLens-100K"),
        ([("ml-100k", 1, 2), ("ml-1m", 1, 3)], "supported"),
        ([("ml-100k", 1, 2), ("ml-1m", 1, 3), ("games", -1, 3)], "supported"),
        ([("ml-100k", 1, 2), ("ml-1m", -1, 3)], "depends"),
        ([("ml-100k", 1, 2), ("ml-1m", -3, -1)], "depends"),
        ([("ml-100k", 1, 2), ("ml-1m", 1, 3), ("games", -3, -1)], "depends"),
        ([("ml-1m", -2, -1), ("ml-1m", -3, -1)], "fails on MovieLens-1M"),
        ([("ml-100k", -2, -1), ("ml-1m", -3, -1)], "refuted"),
        ([("ml-100k", -1, 1), ("ml-1m", -2, 1)], "no difference found"),
        ([("ml-100k", 1, 2), ("ml-100k", -1, 1)], "depends"),
        ([("ml-100k", 1, 2), ("ml-100k", -2, -1)], "depends"),
        ([("ml-100k", -2, -1), ("ml-100k", -1, 1)], "depends"),
    ],
)
def test_one_rule_for_all(effects: list[tuple[str, float, float]], verdict: str) -> None:
    assert verdict_from([Effect("", low, high, 0.01, data) for data, low, high in effects]) == verdict


def test_an_interval_beyond_zero_is_not_enough_after_correction() -> None:
    assert Effect("", 0.01, 0.02, p_value=0.06).side == "neither"
    assert Effect("", 0.01, 0.02, p_value=0.04).side == "claimed"


def test_p_values_are_corrected_over_the_whole_ledger(small: Path) -> None:
    """Nine claims with p = .004 and one with .02: Holm multiplies the smallest by ten, and the largest by one."""
    tests = {f"a{k} minus b; ndcg@10": TEST | {"p_value": 0.004 if k else 0.02} for k in range(10)}
    write_run(small, run_of(arms={"b": arm(loss="triplet")} | {f"a{k}": arm() for k in range(10)}, comparisons=tests))
    entries = [ENTRY.replace("id: wins", f"id: wins{k}").replace("[a, b]", f"[a{k}, b]") for k in range(10)]
    (small / "claims.yml").write_text("".join(entries))
    found = judge(read_claims(small / "claims.yml"), small)
    assert [one.effects[0].p_value for one in found] == pytest.approx([0.04] * 10)


def test_what_could_have_been_found_follows_from_the_interval() -> None:
    """1.96 standard errors on each side: 80 % power needs 1.96 + 0.84 of them."""
    assert Effect("", -0.0196, 0.0196, 0.5).detectable == pytest.approx(0.028, abs=1e-4)


# what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"a": arm(), "b": arm(loss="bpr", dim=32)}}, "differ in 'loss' and in dim, but 'also' names nothing"),
        ({"arms": {"a": arm(), "b": arm(dim=32)}}, "do not differ in 'loss'; they do in dim"),
        ({"arms": {"a": arm(), "b": arm(loss="bpr") | {"version": "0.9"}}}, "'a' is of release 1.0, 'b' of 0.9"),
        ({"arms": {"a": arm(), "b": arm() | {"recommender": "EASE"}}}, "they do in method"),
        ({"arms": {"a": arm()}}, "the run stores no settings of 'b'; it has a"),
        ({"protocol": {"data": "ml-100k", "split": "cold-items", "unit": "users"}}, "covers users, .* folds of items"),
        ({"protocol": {"data": "ml-100k", "split": "leave-last-n", "unit": "draws"}}, "covers draws, .* with users"),
        ({"comparisons": {}}, "no arms at .* of 'ledger-last-ten': .*no 'a minus b; ndcg@10'"),
    ],
    ids=["two differences", "another", "versions", "method", "no settings", "items vary", "draws", "no test"],
)
def test_a_comparison_that_is_none_is_refused(small: Path, changes: dict[str, Any], message: str) -> None:
    write_run(small, run_of(**changes))
    with pytest.raises(InputError, match=message):
        read_effect(EVIDENCE, small)
    with pytest.raises(InputError, match=r"line 2, entry 'wins', evidence on line 9: "):
        shown(small)


def test_a_further_difference_needs_a_reason_which_is_shown(small: Path) -> None:
    write_run(small, run_of(arms={"a": arm(), "b": arm(loss="bpr", dim=32)}))
    edited(small, "differ: loss", "differ: loss, also: {dim: each its own search}")
    assert "Dim differs too: each its own search." in shown(small)
    edited(small, "also: {dim: each its own search}", "also: {dim: each its own search, length: it is longer}")
    with pytest.raises(InputError, match="but 'also' names dim, length"):
        shown(small)


def test_the_settings_of_a_component_belong_to_it(small: Path) -> None:
    """A triplet loss has a margin, InfoNCE has none: that is one difference, the loss."""
    assert read_effect(EVIDENCE, small).side == "claimed"


def test_one_model_under_two_measures_differs_in_the_measure(small: Path) -> None:
    tests = {"a minus a; ndcg@10 minus ndcg@10, attacked": TEST}
    write_run(small, run_of(comparisons=tests))
    both = {"under": "last-ten", "arms": ["a", "a"], "measure": "ndcg@10", "rival_measure": "ndcg@10, attacked"}
    assert read_effect(both | {"differ": "measure"}, small).side == "claimed"


def test_evidence_without_a_run_is_refused(small: Path) -> None:
    with pytest.raises(InputError, match="evidence names a stored run by 'result'"):
        read_effect({"tests": ["tests"], "between": ["a", "b"]}, small)
    edited(small, "under: last-ten", "under: last-one")
    with pytest.raises(InputError, match="evidence on line 9: no stored run 'ledger-last-one'"):
        shown(small)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("holds on MovieLens-100K", "true enough", "line 2, entry 'wins': unknown verdict 'true enough'"),
        ("holds on MovieLens-100K", "refuted", "line 2, entry 'wins': 'refuted' does not follow; write 'holds on"),
        ("arms: [a, b], ", "", "evidence on line 9: evidence has one of arms, tests, test, ratio, value"),
        ("  topic: training\n", "", "line 2, entry 'wins': missing topic"),
        ("  topic: training\n", "  topic: training\n  topics: x\n", "line 2, entry 'wins': unknown topics"),
        (ENTRY[ENTRY.index("  evidence") :], "", "rests on nothing; give it evidence or argument"),
        (
            "verdict: holds on MovieLens-100K",
            "verdict: open",
            "'open' rests on evidence; give it needed, and only that",
        ),
        (ENTRY, ENTRY + ENTRY, r"line 11, entry 'wins': the id is taken by .*line 2"),
    ],
    ids=["verdict", "another verdict", "kind", "missing", "unknown", "nothing", "open", "double"],
)
def test_bad_entries_are_named_with_their_line(small: Path, old: str, new: str, message: str) -> None:
    edited(small, old, new)
    with pytest.raises(InputError, match=message):
        shown(small)


# the other kinds of evidence


def test_stored_tests_are_oriented_by_the_claim(small: Path) -> None:
    write_run(small, run_of(tests={"b": TEST}), "run")
    either = {"result": "run", "tests": ["tests"], "differ": "loss"}
    forward = read_effect(either | {"between": ["a", "b"]}, small)
    turned = read_effect(either | {"between": ["b", "a"]}, small)
    assert (forward.low, forward.high, forward.side) == (0.01, 0.03, "claimed")
    assert (turned.low, turned.high, turned.side) == (-0.03, -0.01, "other")
    one = read_effect({"result": "run", "test": ["tests", "b"], "between": ["a", "b"], "differ": "loss"}, small)
    assert one == forward
    with pytest.raises(InputError, match="one of 'a' and 'c' must be the reference of b"):
        read_effect(either | {"between": ["a", "c"]}, small)


def test_the_unit_is_what_the_run_stored_not_what_an_entry_says(small: Path) -> None:
    write_run(small, run_of(tests={"b": TEST}, protocol={"data": "ml-100k", "split": "cold-items"}), "run")
    claimed = {"unit": "folds of items", "split": "leave-last-n"}
    with pytest.raises(InputError, match=r"covers users, but on 'cold-items' .* folds of items"):
        read_effect({"result": "run", "tests": ["tests"], "between": ["a", "b"], "differ": "loss"} | claimed, small)


def test_quotients_and_limits(small: Path) -> None:
    write_run(small, {"first": [2.0, 4.1, 6.0], "second": [1.0, 2.0, 3.0], "rows": [{"name": "b", "ndcg": 2.0}]}, "run")
    ratio = {"result": "run", "ratio": [["first"], ["second"]], "names": ["a", "b"], "metric": "time"}
    assert read_effect(ratio, small).side == "claimed"
    with pytest.raises(InputError, match="3 and 1 rounds"):
        read_effect(ratio | {"ratio": [["first"], ["rows", "ndcg"]]}, small)
    value = {"result": "run", "value": ["rows", "name=b", "ndcg"], "of": "b"}
    assert read_effect(value | {"at least": 1}, small).side == "claimed"
    assert read_effect(value | {"at most": 1}, small).side == "other"
    with pytest.raises(InputError, match="no row with name=c"):
        read_effect(value | {"value": ["rows", "name=c", "ndcg"], "at least": 1}, small)


# the page


def test_a_changed_number_changes_the_table(small: Path) -> None:
    assert "+0.0200" in shown(small)
    write_run(small, run_of(comparisons={"a minus b; ndcg@10": TEST | {"difference": 0.021}}))
    assert "+0.0210" in shown(small)


def test_where_nothing_was_found_the_table_says_what_would_have_been(small: Path) -> None:
    write_run(
        small, run_of(comparisons={"a minus b; ndcg@10": TEST | {"low": -0.0196, "high": 0.0196, "p_value": 0.5}})
    )
    edited(small, "holds on MovieLens-100K", "no difference found")
    assert "A difference of 0.028 would have been found in four of five such experiments." in shown(small)


def test_verdicts_are_told_by_word_and_mark(small: Path) -> None:
    assert re.search(r">✓</span> holds on MovieLens-100K", shown(small))
    assert len(set(VERDICTS.values())) == len(VERDICTS)
    assert {kind_of(claim.verdict) for claim in CLAIMS} <= set(VERDICTS)


def test_a_chapter_without_claims_is_named(small: Path) -> None:
    with pytest.raises(InputError, match="no claim with chapter 8"):
        claims_table(chapter=8, path=small / "claims.yml", folder=small)
