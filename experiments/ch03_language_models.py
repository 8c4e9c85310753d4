"""Chapter 3 experiments: a small chat model as a zero-shot ranker, and as a writer of profiles and explanations.

The model runs in bfloat16 and decodes greedily: the only chance is in the samples of users and candidates.
"""

from __future__ import annotations

import time
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from common import Experiment, Parts, genres_of, mean_with_interval, paired
from scipy.stats import spearmanr

from recsys_cl.book.grounding import grounding, labels_named
from recsys_cl.data import Interactions, Queries, Split, history_text, leave_one_out, load_movielens
from recsys_cl.evaluation import Evaluation, rank_metrics
from recsys_cl.recommenders import create
from recsys_cl.recommenders.prompted import (
    LikelihoodRanker,
    ListRanker,
    sample_candidates,
    write_profiles,
    write_reasons,
)
from recsys_cl.text import LanguageEncoder
from recsys_cl.text.decoder import LanguageModel

SEED = 0
USERS, CANDIDATES, LAST, ORDERS = 200, 20, 20, 5
SPOT = 2  # users whose scores are stored, to be computed again by a test
RIVALS = ("random", "popularity", "tfidf", "minilm", "ease-recency")
METRICS = ("ndcg@10", "hr@1", "mrr@20")
CONFIG = {
    "model": "smollm2",
    "precision": "bfloat16",
    "users": USERS,
    "candidates": CANDIDATES,
    "titles in the prompt": LAST,
    "orders": ORDERS,
    "seed": SEED,
}


@cache
def language_model(precision: Literal["bfloat16", "float32"] = "bfloat16") -> LanguageModel:
    """Return SmolLM2, loaded once."""
    return LanguageModel("smollm2", precision=precision)


@cache
def leave_one_out_split() -> Split:
    """Return the split of this chapter."""
    return leave_one_out(load_movielens(), seed=SEED)


def questions() -> Queries:
    """Return the test queries of a seeded sample of users."""
    test = leave_one_out_split().test
    return test[np.sort(np.random.default_rng(SEED).permutation(len(test))[:USERS])]


def samplings() -> dict[str, np.ndarray]:
    """Return the sampling weights of the negative candidates, ``(n_items,)`` each."""
    counts = leave_one_out_split().counts
    return {"uniform": np.ones(len(counts)), "popularity": counts.astype(np.float64)}


def histories_of(queries: Queries) -> list[list[str]]:
    """Return the titles of each query's history, the oldest first."""
    titles = leave_one_out_split().data.titles
    history = queries.history
    bounds = zip(history.start, history.stop, strict=True)
    return [[titles[item] for item in history.items[start:stop]] for start, stop in bounds]


def ranked(scores: dict[str, torch.Tensor], candidates: np.ndarray, queries: Queries, against: str) -> dict[str, Any]:
    """Return a table of scorers on the same candidates, with paired tests against one of them."""
    target = queries.target.items[queries.target.start]
    place = (candidates == target[:, None]).argmax(1)
    evaluations = {}
    for name, score in scores.items():
        metrics = rank_metrics(score, place[:, None].tolist(), ks=(1, 10, CANDIDATES))
        evaluations[name] = Evaluation(queries.user, {metric: metrics[metric] for metric in METRICS})
    rows = [
        {"model": name, "metrics": {metric: mean_with_interval(one.metrics[metric]) for metric in METRICS}}
        for name, one in evaluations.items()
    ]
    return {"rows": rows, "against": against, "tests": paired(evaluations, against)}


def rivals(candidates: np.ndarray, queries: Queries, names: tuple[str, ...] = RIVALS) -> dict[str, torch.Tensor]:
    """Return the scores of models without a prompt, ``(users, candidates)`` each."""
    split = leave_one_out_split()
    return {
        name: create(name).fit(split).score(queries.history).gather(1, torch.from_numpy(candidates)) for name in names
    }


def llm_ranker(parts: Parts) -> dict[str, Any]:
    """Rank twenty candidates by the likelihood of their titles, and by the letter that the model answers."""
    queries = questions()
    histories, titles = histories_of(queries), leave_one_out_split().data.titles
    result: dict[str, Any] = {"config": CONFIG}
    result |= {key: {} for key in ("tables", "places", "correlation with popularity", "spot")}
    for sampling, weights in samplings().items():
        candidates = sample_candidates(queries, weights, n=CANDIDATES, seed=SEED)
        named = [[titles[item] for item in row] for row in candidates]
        answers = parts.in_blocks(sampling, len(queries), partial(ask_both_ways, histories, named))
        scores = rivals(candidates, queries)
        scores |= {f"smollm2 likelihood, {key}": torch.tensor(answers[key]) for key in ("total", "mean", "calibrated")}
        places, log_prob = np.array(answers["places"]), torch.tensor(answers["log_prob"])  # (U, orders, n)
        answer = torch.zeros_like(log_prob).scatter(2, torch.from_numpy(places), log_prob)  # (U, orders, n)
        scores |= {"smollm2 list, one order": answer[:, 0], f"smollm2 list, {ORDERS} orders": answer.mean(1)}
        result["tables"][sampling] = ranked(scores, candidates, queries, "popularity")
        result["places"][sampling] = by_place(log_prob, places, candidates, queries)
        result["correlation with popularity"][sampling] = {
            name: mean_with_interval(
                [spearmanr(*pair).statistic for pair in zip(score, scores["popularity"], strict=True)]
            )
            for name, score in scores.items()
            if name.startswith("smollm2")
        }
        result["spot"][sampling] = {
            "users": queries.user[:SPOT].tolist(),
            "candidates": candidates[:SPOT].tolist(),
            "total": answers["total"][:SPOT],
            "first order": log_prob[:SPOT, 0].tolist(),
        }
    ways = ("likelihood of the candidates", "one list of them")
    result["seconds"] = dict(zip(ways, np.mean(answers["seconds"], axis=0).tolist(), strict=True))
    result["precision"] = precision_check(queries, histories)
    return result


def ask_both_ways(histories: list[list[str]], named: list[list[str]], rows: range) -> dict[str, list]:
    """Return likelihoods of candidate titles, and log-probabilities of their letters in each order, for some users."""
    model = language_model()
    by_likelihood = LikelihoodRanker(model, last=LAST)
    by_letter = ListRanker(model, last=LAST, orders=ORDERS, seed=SEED)
    answers: dict[str, list] = {key: [] for key in ("total", "mean", "calibrated", "places", "log_prob", "seconds")}
    for row in rows:
        history, candidates = histories[row], named[row]
        started = time.perf_counter()
        likelihood = by_likelihood.score(history, candidates)
        half = time.perf_counter()
        places, log_prob = by_letter.by_place(history, candidates)
        answers["seconds"].append([half - started, (time.perf_counter() - half) / ORDERS])
        for key in ("total", "mean", "calibrated"):
            answers[key].append(getattr(likelihood, key).tolist())
        answers["places"].append(places.tolist())
        answers["log_prob"].append(log_prob.tolist())
    return answers


def by_place(log_prob: torch.Tensor, places: np.ndarray, candidates: np.ndarray, queries: Queries) -> dict[str, Any]:
    """Measure position bias: probability of each place, how often it wins, and how often it wins with the target."""
    wins = F.one_hot(log_prob.argmax(2), CANDIDATES).double()  # (U, orders, n)
    target = queries.target.items[queries.target.start]
    is_target = np.take_along_axis(candidates[:, None], places, axis=2) == target[:, None, None]  # (U, orders, n)
    return {
        "probability": [mean_with_interval(column) for column in log_prob.exp().mean(1).T.numpy()],
        "first choice": [mean_with_interval(column) for column in wins.mean(1).T.numpy()],
        "chosen where the target stands": mean_with_interval((wins.numpy() * is_target).sum(2).mean(1)),
    }


def precision_check(queries: Queries, histories: list[list[str]], users: int = 10) -> dict[str, float]:
    """Compare bfloat16 with float32 on popular candidates of a few users."""
    candidates = sample_candidates(queries, samplings()["popularity"], n=CANDIDATES, seed=SEED)[:users]
    titles = leave_one_out_split().data.titles
    totals = [
        torch.stack(
            [
                LikelihoodRanker(model, last=LAST).score(history, [titles[i] for i in row]).total
                for history, row in zip(histories, candidates, strict=False)
            ]
        )
        for model in (language_model(), language_model("float32"))
    ]
    rank = [total.argsort(1, descending=True).argsort(1).double() for total in totals]
    return {
        "users": users,
        "largest difference in log-probability": float((totals[0] - totals[1]).abs().max()),
        "mean Spearman correlation of ranks": float(
            np.mean([spearmanr(*pair).statistic for pair in zip(*rank, strict=True)])
        ),
    }


def favourite_genres(items: np.ndarray, genres: list[set[str]], n: int = 3) -> list[str]:
    """Return the most frequent genres of the items, ties in alphabetical order."""
    counts: dict[str, int] = {}
    for genre in sorted(genre for item in items for genre in genres[item]):
        counts[genre] = counts.get(genre, 0) + 1
    return sorted(counts, key=lambda genre: -counts[genre])[:n]


def llm_profiles(parts: Parts) -> dict[str, Any]:
    """Evaluate written profiles as user vectors, and check the facts in profiles and reasons."""
    queries, split = questions(), leave_one_out_split()
    data, histories = split.data, histories_of(queries)
    titles, genres = data.titles, genres_of(data)
    recent = queries.history.last(LAST)
    items = [recent.items[start:stop] for start, stop in zip(recent.start, recent.stop, strict=True)]
    best = create("ease-recency").fit(split).score(queries.history)  # (U, N)
    rows_seen, positions = queries.history.flat()
    best[rows_seen, queries.history.items[positions]] = -torch.inf
    offered = [titles[item] for item in best.argmax(1).tolist()]

    def write(rows: range) -> dict[str, list]:
        some = [histories[row] for row in rows]
        started = time.perf_counter()
        profiles = write_profiles(language_model(), some, last=LAST)
        reasons = write_reasons(language_model(), some, [offered[row] for row in rows], last=LAST)
        seconds = (time.perf_counter() - started) / len(rows) / 2
        return {
            "profile": [one.text for one in profiles],
            "reason": [one.text for one in reasons],
            "finished": [one.finished for one in profiles],
            "seconds": [seconds] * len(rows),
        }

    written = parts.in_blocks("written", len(queries), write)
    sentences = [f"I like films of these genres: {', '.join(favourite_genres(row, genres))}." for row in items]
    texts = {
        "text of the history": [history_text(history, last=LAST) for history in histories],
        "one sentence of genres": sentences,
        "smollm2 profile": written["profile"],
    }
    seen = {
        "in one of the films": [set().union(*(genres[item] for item in row)) for row in items],
        "among the three most frequent": [set(favourite_genres(row, genres)) for row in items],
    }
    named = [history[-LAST:] for history in histories]
    item_genres = dict(zip(titles, genres, strict=True))
    return {
        "config": CONFIG,
        "tables": vector_tables(queries, user_vectors(data, items, texts)),
        "profiles": checked(written["profile"], named, seen, titles)
        | {"unfinished": written["finished"].count("length")},
        "reasons": checked(
            written["reason"],
            [[*history, offer] for history, offer in zip(named, offered, strict=True)],
            {"of the film offered": [item_genres[offer] for offer in offered]},
            titles,
        )
        | {"names a film of the history": names_one_of(written["reason"], named, titles)}
        | {"names the film offered": names_one_of(written["reason"], [[offer] for offer in offered], titles)},
        "examples": [
            {"history": named[row], "offered": offered[row], "profile": written["profile"][row]}
            | {"reason": written["reason"][row]}
            for row in range(10)
        ],
        "seconds": float(np.mean(written["seconds"])),
    }


def vector_tables(queries: Queries, vectors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Return the tables of candidates ranked by the product of item vectors and each kind of user vectors."""
    item_vectors = vectors["items"]  # (N, d)
    users = {name: user for name, user in vectors.items() if name != "items"}  # (U, d) each
    tables = {}
    for sampling, weights in samplings().items():
        candidates = sample_candidates(queries, weights, n=CANDIDATES, seed=SEED)
        scores = {name: (item_vectors[candidates] @ user[:, :, None])[..., 0] for name, user in users.items()}
        scores |= rivals(candidates, queries, ("random", "popularity"))
        tables[sampling] = ranked(scores, candidates, queries, "mean of the items")
    return tables


def user_vectors(data: Interactions, items: list[np.ndarray], texts: dict[str, list[str]]) -> dict[str, torch.Tensor]:
    """Return item vectors and each kind of user vectors in MiniLM's space; each kind of text is centred on its mean."""
    encoder = LanguageEncoder("minilm")
    vectors = {"items": centred(encoder.encode(data.texts))}  # (N, d)
    vectors["mean of the items"] = torch.stack([vectors["items"][row].mean(0) for row in items])  # (U, d)
    return vectors | {name: centred(encoder.encode(written)) for name, written in texts.items()}  # (U, d)


def centred(vectors: torch.Tensor) -> torch.Tensor:
    """Subtract the mean vector, and normalise."""
    return F.normalize(vectors - vectors.mean(0), dim=1)


def names_one_of(texts: list[str], titles: list[list[str]], catalogue: list[str]) -> dict[str, float]:
    """Return the share of texts that name one of their titles."""
    pairs = zip(texts, titles, strict=True)
    return mean_with_interval([bool(grounding(text, allowed, catalogue).known) for text, allowed in pairs])


def checked(
    texts: list[str], allowed: list[list[str]], facts: dict[str, list[set[str]]], catalogue: list[str]
) -> dict[str, Any]:
    """Check the titles and genres that texts name; another user's facts give the chance level for genres."""
    named = [grounding(text, titles, catalogue) for text, titles in zip(texts, allowed, strict=True)]
    labels = sorted(set().union(*genres_of(leave_one_out_split().data)) - {"unknown"})
    claimed = [labels_named(text, labels) for text in texts]
    claims = [row for row, names in enumerate(claimed) if names]
    right = {
        f"claimed genres {fact}{who}": mean_with_interval(
            [len(claimed[row] & genres[(row + shift) % len(genres)]) / len(claimed[row]) for row in claims]
        )
        for fact, genres in facts.items()
        for who, shift in (("", 0), (", another user's", 1))
    }
    counts = {label: sum(label in names for names in claimed) for label in labels}
    return {
        "names a title": mean_with_interval([bool(one.known or one.foreign) for one in named]),
        "names a foreign title": mean_with_interval([bool(one.foreign) for one in named]),
        "foreign titles": sorted({title for one in named for title in one.foreign}),
        "claims a genre": mean_with_interval([bool(names) for names in claimed]),
        "claims": {label: count for label, count in counts.items() if count},
        "distinct": len(set(texts)),
    } | right


FILMS = {"titles": 20, "whole texts": 8}
"""Number of films of a history that are read, so that they fit into the encoder's 256 tokens."""


def user_as_text(parts: Parts) -> dict[str, Any]:
    """Compare a history read as one text with the mean of its films read alone: the same films and words in both."""
    split = leave_one_out_split()
    queries, encoder = split.test, LanguageEncoder("minilm")
    items = centred(encoder.encode(split.data.texts))  # (N, d)
    words = {"titles": split.data.titles, "whole texts": split.data.texts}
    users = {kind: both_readings(encoder, queries, texts, FILMS[kind]) for kind, texts in words.items()}
    rows: list[dict[str, Any]] = []
    tests: dict[str, dict[str, Any]] = {}
    for sampling, weights in samplings().items():
        candidates = sample_candidates(queries, weights, n=CANDIDATES, seed=SEED)
        tests[sampling] = {}
        for kind, vectors in users.items():
            own = items[candidates]  # (U, n, d)
            scores = {
                f"{kind}, {how}": (own @ user[:, :, None])[..., 0] for how, user in vectors.items()
            }  # (U, n) each
            found = ranked(scores, candidates, queries, f"{kind}, one text")
            rows += [{"candidates": sampling} | row for row in found["rows"]]
            tests[sampling][kind] = found["tests"]
    protocol = {"data": split.data.name, "split": split.protocol, "users": len(queries), "films": FILMS}
    return {"protocol": protocol | {"candidates": CANDIDATES}, "rows": rows, "paired": tests}


def both_readings(encoder: LanguageEncoder, queries: Queries, texts: list[str], films: int) -> dict[str, torch.Tensor]:
    """Return user vectors of the latest films, read as one text and read alone and averaged, ``(U, d)`` each."""
    recent = queries.history.last(films)
    histories = [recent.items[start:stop] for start, stop in zip(recent.start, recent.stop, strict=True)]
    alone = encoder.encode(texts)  # (N, d)
    return {
        "one text": centred(encoder.encode(["; ".join(texts[item] for item in history) for history in histories])),
        "averaged": centred(torch.stack([alone[torch.from_numpy(history)].mean(0) for history in histories])),
    }


RUNS: dict[str, Experiment] = {
    "llm-ranker": llm_ranker,
    "llm-profiles": llm_profiles,
    "user-as-text": user_as_text,
}
