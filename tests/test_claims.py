"""The claims ledger: verdicts follow from stored runs, nothing is omitted, and the chapters quote it."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest

from recsys_cl.book.claims import (
    UNJUDGED,
    VERDICTS,
    Claim,
    Effect,
    claims_table,
    effects_of,
    read_claims,
    read_effect,
    verdict_from,
)
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
  verdict: supported
  evidence:
    - {result: run, tests: [tests], pair: [a, b]}
"""
RUN = {
    "tests": {"b": {"difference": 0.02, "low": 0.01, "high": 0.03, "p_value": 0.004}},
    "draws": {"a": [2, 4, 6], "b": [1, 2, 3]},
}


@each_claim
def test_verdict_follows_from_the_stored_runs(claim: Claim) -> None:
    effects = effects_of(claim, RESULTS)
    assert bool(effects) == (claim.verdict not in UNJUDGED and claim.argument is None)
    assert claim.verdict == verdict_from(effects) if effects else claim.verdict in VERDICTS


@each_claim
def test_commands_are_those_that_made_the_runs(claim: Claim) -> None:
    made = [json.loads((RESULTS / f"{run}.json").read_text())["command"] for run in claim.runs]
    assert list(claim.command) == list(dict.fromkeys(made))


@each_claim
def test_sides_agree_with_the_means_of_the_runs(claim: Claim) -> None:
    """The reference of a stored test is named in the ledger by hand: a wrong one would turn the sign."""
    for evidence in claim.evidence:
        result = json.loads((RESULTS / f"{evidence['result']}.json").read_text())["result"]
        means = result.get("runs", {})
        if evidence.get("tests", [""])[0] in ("tests", "tests against") and means:
            first, second = (sum(means[name]) / len(means[name]) for name in evidence["pair"])
            test = read_effect(evidence, RESULTS)
            assert test.low < first - second < test.high


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


@pytest.mark.parametrize(
    ("intervals", "verdict"),
    [
        ([(1, 2), (1, 3)], "supported"),
        ([(-2, -1), (-3, -1)], "refuted"),
        ([(-1, 1), (-2, 1)], "no difference found"),
        ([(1, 2), (-1, 1)], "depends"),
        ([(1, 2), (-2, -1)], "depends"),
        ([(-2, -1), (-1, 1)], "depends"),
    ],
)
def test_one_rule_for_all(intervals: list[tuple[float, float]], verdict: str) -> None:
    assert verdict_from([Effect("", low, high) for low, high in intervals]) == verdict


def test_an_interval_beyond_zero_is_not_enough_after_correction() -> None:
    assert Effect("", 0.01, 0.02, p_value=0.06).side == "neither"
    assert Effect("", 0.01, 0.02, p_value=0.04).side == "claimed"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A ledger of one claim and its run."""
    (tmp_path / "claims.yml").write_text(ENTRY)
    write_run(tmp_path, RUN)
    return tmp_path


def write_run(folder: Path, result: dict[str, object]) -> None:
    (folder / "run.json").write_text(json.dumps({"command": "python experiments/run.py run", "result": result}))


def shown(folder: Path) -> str:
    return claims_table(path=folder / "claims.yml", folder=folder).to_html()


def edited(folder: Path, old: str, new: str) -> Path:
    file = folder / "claims.yml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    return file


def test_every_kind_of_evidence_is_oriented_by_the_claim(small: Path) -> None:
    forward = read_effect({"result": "run", "tests": ["tests"], "pair": ["a", "b"]}, small)
    turned = read_effect({"result": "run", "tests": ["tests"], "pair": ["b", "a"]}, small)
    assert (forward.low, forward.high, forward.side) == (0.01, 0.03, "claimed")
    assert (turned.low, turned.high, turned.side) == (-0.03, -0.01, "other")
    one = read_effect({"result": "run", "test": ["tests", "b"], "pair": ["a", "b"]}, small)
    assert one == forward
    paths = [["draws", "a"], ["draws", "b"]]
    apart = read_effect({"result": "run", "draws": paths, "pair": ["a", "b"]}, small)
    half = 4.302652729911275 / 3**0.5  # Student's t for 2 degrees of freedom; differences 1, 2, 3 have deviation 1
    assert (apart.low, apart.high) == pytest.approx((2 - half, 2 + half))
    quotient = read_effect({"result": "run", "ratio": paths, "pair": ["a", "b"], "metric": "time"}, small)
    assert (quotient.low, quotient.high, quotient.side) == (1, 1, "claimed")
    lowest = {"result": "run", "value": ["tests", "b", "p_value"], "of": "p"}
    assert read_effect(lowest | {"at most": 0.005}, small).side == "claimed"
    assert read_effect(lowest | {"at least": 0.005}, small).side == "other"


def test_paths_lead_through_rows(small: Path) -> None:
    write_run(small, {"rows": [{"name": "a", "ndcg": 1.0}, {"name": "b", "ndcg": 2.0}]})
    assert (
        "2, claimed"
        in read_effect({"result": "run", "value": ["rows", "name=b", "ndcg"], "of": "b", "at least": 1}, small).text
    )
    with pytest.raises(InputError, match="no row with name=c"):
        read_effect({"result": "run", "value": ["rows", "name=c", "ndcg"], "of": "c", "at least": 1}, small)


def test_a_changed_number_changes_the_table(small: Path) -> None:
    before = shown(small)
    write_run(small, {"tests": {"b": RUN["tests"]["b"] | {"difference": 0.021}}})  # type: ignore[index]
    assert "+0.0200" in before
    assert "+0.0210" in shown(small)


def test_a_changed_sign_contradicts_the_verdict(small: Path) -> None:
    write_run(small, {"tests": {"b": {"difference": -0.02, "low": -0.03, "high": -0.01, "p_value": 0.004}}})
    with pytest.raises(
        InputError, match=r"claims.yml, line 2, entry 'wins': 'supported' does not follow; write 'refuted'"
    ):
        shown(small)


def test_a_changed_sign_in_a_real_run_contradicts_its_claims(tmp_path: Path) -> None:
    shutil.copytree(RESULTS, tmp_path / "results")
    file = tmp_path / "results" / "fine-tune.json"
    run = json.loads(file.read_text())
    test = run["result"]["tests"]["full"]
    run["result"]["tests"]["full"] = {key: -value if key != "p_value" else value for key, value in test.items()}
    file.write_text(json.dumps(run))
    wrong = {
        claim.id
        for claim in CLAIMS
        if claim.evidence and claim.verdict != verdict_from(effects_of(claim, tmp_path / "results"))
    }
    assert wrong == {"lora-is-enough"}


def test_verdicts_are_told_by_word_and_mark(small: Path) -> None:
    assert "✔ supported" in shown(small)
    assert len(set(VERDICTS.values())) == len(VERDICTS)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("supported", "true enough", "line 2, entry 'wins': unknown verdict 'true enough'; it is one of supported"),
        ("result: run", "result: ran", "line 2, entry 'wins', evidence on line 9: no stored run 'ran'"),
        ("tests: [tests]", "tests: [pairs]", "evidence on line 9: no tests at .*no 'pairs' among tests, draws"),
        ("pair: [a, b]", "pair: [a, c]", "one of 'a' and 'c' must be the reference of b"),
        ("tests: [tests], ", "", "evidence on line 9: evidence has a result and one of tests, test, draws"),
        ("  topic: training\n", "", "line 2, entry 'wins': missing topic"),
        ("  topic: training\n", "  topic: training\n  topics: x\n", "line 2, entry 'wins': unknown topics"),
        (ENTRY[ENTRY.index("  evidence") :], "", "'supported' rests on nothing; give it evidence or argument"),
        ("verdict: supported", "verdict: open", "'open' rests on evidence; give it needed, and only that"),
        (ENTRY, ENTRY + ENTRY, r"line 11, entry 'wins': the id is taken by .*line 2"),
    ],
    ids=["verdict", "result", "key", "model", "kind", "missing", "unknown", "nothing", "open", "double"],
)
def test_bad_entries_are_named_with_their_line(small: Path, old: str, new: str, message: str) -> None:
    edited(small, old, new)
    with pytest.raises(InputError, match=message):
        shown(small)


def test_draws_that_do_not_match_are_refused(small: Path) -> None:
    write_run(small, {"draws": {"a": [1, 2, 3], "b": [1, 2]}})
    with pytest.raises(InputError, match="3 and 2 draws; give the same number"):
        read_effect({"result": "run", "draws": [["draws", "a"], ["draws", "b"]], "pair": ["a", "b"]}, small)


def test_a_chapter_without_claims_is_named(small: Path) -> None:
    with pytest.raises(InputError, match="no claim with chapter 8"):
        claims_table(chapter=8, path=small / "claims.yml", folder=small)
