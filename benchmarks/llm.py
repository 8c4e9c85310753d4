"""Stored runs of a small chat model on films: as a ranker, as a writer of profiles and reasons, and what it remembers.

    python benchmarks/run.py llm-ranker
    python benchmarks/run.py llm-profiles
    python benchmarks/run.py llm-memory

Everything is asked in bfloat16 and, where text is written, for the most likely word: no chance but that of the samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from parts import kept
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, cross_val_predict

from recsys_cl.data import Interactions, Queries, Split, history_text, leave_one_out, load_movielens
from recsys_cl.encoders import LanguageEncoder
from recsys_cl.encoders.decoder import LanguageModel
from recsys_cl.evaluation import Evaluation, bootstrap_interval, compare, rank_metrics
from recsys_cl.recommenders import create
from recsys_cl.recommenders.grounding import grounding, labels_named
from recsys_cl.recommenders.prompted import (
    LikelihoodRanker,
    ListRanker,
    sample_candidates,
    write_profiles,
    write_reasons,
)

USERS, CANDIDATES, LAST, ORDERS, SEED = 200, 20, 20, 5, 0
BLOCK = 20  # users or films whose answers are kept together
FILMS = 500  # films asked about one by one
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
def language_model(precision: str = "bfloat16") -> LanguageModel:
    return LanguageModel("smollm2", precision=precision)


@cache
def leave_one_out_split() -> Split:
    return leave_one_out(load_movielens(), seed=SEED)


def questions() -> Queries:
    """The test queries of a seeded sample of users."""
    test = leave_one_out_split().test
    return test[np.sort(np.random.default_rng(SEED).permutation(len(test))[:USERS])]


def samplings() -> dict[str, np.ndarray]:
    """Weights with which the other candidates are drawn."""
    counts = leave_one_out_split().counts
    return {"uniform": np.ones(len(counts)), "popularity": counts.astype(np.float64)}


def titles_of(data: Interactions) -> list[str]:
    return [str(title) for title in data.items["title"]]


def histories_of(queries: Queries) -> list[list[str]]:
    titles = titles_of(leave_one_out_split().data)
    history = queries.history
    bounds = zip(history.start, history.stop, strict=True)
    return [[titles[item] for item in history.items[start:stop]] for start, stop in bounds]


def in_blocks(partial: Path, name: str, count: int, answer: Callable[[range], dict[str, list]]) -> dict[str, list]:
    """Answers to questions 0 to ``count``, a block at a time, each block kept on disk."""
    answers: dict[str, list] = {}
    for start in range(0, count, BLOCK):
        rows = range(start, min(start + BLOCK, count))
        for key, values in kept(partial / f"{name}-{start:04d}.json", lambda rows=rows: answer(rows)).items():
            answers.setdefault(key, []).extend(values)
    return answers


def mean_with_interval(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Mean over users or films with its 95 % bootstrap interval."""
    values = np.asarray(values, dtype=np.float64)
    low, high = bootstrap_interval(values, np.arange(len(values)))
    return {"mean": float(values.mean()), "low": low, "high": high, "n": len(values)}


def ranked(scores: dict[str, torch.Tensor], candidates: np.ndarray, queries: Queries, against: str) -> dict[str, Any]:
    """A table of scorers on the same candidates, each tested against one of them."""
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
    tests = {name: vars(test) for name, test in compare(evaluations, against=against).items()}
    return {"rows": rows, "against": against, "tests": tests}


def rivals(candidates: np.ndarray, queries: Queries) -> dict[str, torch.Tensor]:
    """Scores of models that need no prompt, ``(users, candidates)`` each."""
    split = leave_one_out_split()
    return {
        name: create(name).fit(split).score(queries.history).gather(1, torch.from_numpy(candidates)) for name in RIVALS
    }


def llm_ranker(partial: Path) -> dict[str, Any]:
    """Twenty candidates ranked by the likelihood of their titles and by the letter that the model answers."""
    queries = questions()
    histories, titles = histories_of(queries), titles_of(leave_one_out_split().data)
    result: dict[str, Any] = {"config": CONFIG, "tables": {}, "places": {}}
    for sampling, weights in samplings().items():
        candidates = sample_candidates(queries, weights, n=CANDIDATES, seed=SEED)
        named = [[titles[item] for item in row] for row in candidates]

        def ask(rows: range, named: list[list[str]] = named) -> dict[str, list]:
            return ask_both_ways(language_model(), [histories[row] for row in rows], [named[row] for row in rows])

        answers = in_blocks(partial, sampling, len(queries), ask)
        scores = rivals(candidates, queries)
        scores |= {f"smollm2 likelihood, {key}": torch.tensor(answers[key]) for key in ("total", "mean", "calibrated")}
        places, log_prob = np.array(answers["places"]), torch.tensor(answers["log_prob"])  # (U, orders, n)
        answer = torch.zeros_like(log_prob).scatter(2, torch.from_numpy(places), log_prob)  # (U, orders, n)
        scores |= {"smollm2 list, one order": answer[:, 0], f"smollm2 list, {ORDERS} orders": answer.mean(1)}
        result["tables"][sampling] = ranked(scores, candidates, queries, "popularity")
        result["places"][sampling] = by_place(log_prob, places, candidates, queries)
    result["seconds"] = float(np.mean(answers["seconds"]))
    result["precision"] = precision_check(queries, histories)
    return result


def ask_both_ways(model: LanguageModel, histories: list[list[str]], named: list[list[str]]) -> dict[str, list]:
    """Likelihoods of the candidates' titles, and log-probabilities of their letters in every order."""
    by_likelihood = LikelihoodRanker(model, last=LAST)
    by_letter = ListRanker(model, last=LAST, orders=ORDERS, seed=SEED)
    answers: dict[str, list] = {key: [] for key in ("total", "mean", "calibrated", "places", "log_prob", "seconds")}
    for history, candidates in zip(histories, named, strict=True):
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
    """What a place in the list is worth: its probability, how often it wins, how often the target there wins."""
    wins = F.one_hot(log_prob.argmax(2), CANDIDATES).double()  # (U, orders, n)
    target = queries.target.items[queries.target.start]
    is_target = np.take_along_axis(candidates[:, None], places, axis=2) == target[:, None, None]  # (U, orders, n)
    return {
        "probability": [mean_with_interval(column) for column in log_prob.exp().mean(1).T.numpy()],
        "first choice": [mean_with_interval(column) for column in wins.mean(1).T.numpy()],
        "chosen where the target stands": mean_with_interval((wins.numpy() * is_target).sum(2).mean(1)),
    }


def precision_check(queries: Queries, histories: list[list[str]], users: int = 10) -> dict[str, float]:
    """How far bfloat16 is from float32, on a few users' popular candidates."""
    candidates = sample_candidates(queries, samplings()["popularity"], n=CANDIDATES, seed=SEED)[:users]
    titles = titles_of(leave_one_out_split().data)
    totals = [
        torch.stack(
            [
                LikelihoodRanker(language_model(precision), last=LAST).score(history, [titles[i] for i in row]).total
                for history, row in zip(histories, candidates, strict=False)
            ]
        )
        for precision in ("bfloat16", "float32")
    ]
    rank = [total.argsort(1, descending=True).argsort(1).double() for total in totals]
    return {
        "users": users,
        "largest difference in log-probability": float((totals[0] - totals[1]).abs().max()),
        "mean Spearman correlation of ranks": float(
            np.mean([spearmanr(*pair).statistic for pair in zip(*rank, strict=True)])
        ),
    }


def genres_of(data: Interactions) -> list[set[str]]:
    return [set(filter(None, str(genres).split(", "))) for genres in data.items["genres"]]


def favourite_genres(items: np.ndarray, genres: list[set[str]], n: int = 3) -> list[str]:
    """The genres that most of the items have, ties in alphabetical order."""
    counts: dict[str, int] = {}
    for genre in sorted(genre for item in items for genre in genres[item]):
        counts[genre] = counts.get(genre, 0) + 1
    return sorted(counts, key=lambda genre: -counts[genre])[:n]


def llm_profiles(partial: Path) -> dict[str, Any]:
    """Profiles that the model writes, as the user's vector and against the facts; reasons against the facts."""
    queries, split = questions(), leave_one_out_split()
    data, histories = split.data, histories_of(queries)
    titles, genres = titles_of(data), genres_of(data)
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

    written = in_blocks(partial, "written", len(queries), write)
    sentences = [f"I like films of these genres: {', '.join(favourite_genres(row, genres))}." for row in items]
    texts = {
        "text of the history": [history_text(history, last=LAST) for history in histories],
        "one sentence of genres": sentences,
        "smollm2 profile": written["profile"],
    }
    vectors = user_vectors(data, items, texts)
    item_vectors = vectors.pop("items")
    tables = {}
    for sampling, weights in samplings().items():
        candidates = sample_candidates(queries, weights, n=CANDIDATES, seed=SEED)
        scores = {name: (item_vectors[candidates] @ user[:, :, None])[..., 0] for name, user in vectors.items()}
        scores |= {name: score for name, score in rivals(candidates, queries).items() if name in {"popularity"}}
        tables[sampling] = ranked(scores, candidates, queries, "mean of the items")
    seen_genres = [set().union(*(genres[item] for item in row)) for row in items]
    named = [history[-LAST:] for history in histories]
    item_genres = dict(zip(titles, genres, strict=True))
    return {
        "config": CONFIG,
        "tables": tables,
        "profiles": checked(written["profile"], named, seen_genres, titles)
        | {"distinct": len(set(written["profile"])), "unfinished": written["finished"].count("length")},
        "reasons": checked(
            written["reason"],
            [[*history, offer] for history, offer in zip(named, offered, strict=True)],
            [item_genres[offer] for offer in offered],
            titles,
        )
        | {"names a film of the history": names_one_of(written["reason"], named, titles)}
        | {"names the film offered": names_one_of(written["reason"], [[offer] for offer in offered], titles)}
        | {"distinct": len(set(written["reason"]))},
        "examples": [
            {"history": named[row], "offered": offered[row], "profile": written["profile"][row]}
            | {"reason": written["reason"][row]}
            for row in range(10)
        ],
        "seconds": float(np.mean(written["seconds"])),
    }


def user_vectors(data: Interactions, items: list[np.ndarray], texts: dict[str, list[str]]) -> dict[str, torch.Tensor]:
    """Every way to put a user into MiniLM's space, centred on the catalogue, and the items' vectors."""
    encoder = LanguageEncoder("minilm")
    raw = encoder.encode(data.texts)  # (N, d)
    vectors = {"items": F.normalize(raw - raw.mean(0), dim=1)}  # (N, d)
    vectors["mean of the items"] = torch.stack([vectors["items"][row].mean(0) for row in items])  # (U, d)
    for name, written in texts.items():
        vectors[name] = F.normalize(encoder.encode(written) - raw.mean(0), dim=1)  # (U, d)
    return vectors


def names_one_of(texts: list[str], titles: list[list[str]], catalogue: list[str]) -> dict[str, float]:
    pairs = zip(texts, titles, strict=True)
    return mean_with_interval([bool(grounding(text, allowed, catalogue).known) for text, allowed in pairs])


def checked(texts: list[str], allowed: list[list[str]], genres: list[set[str]], catalogue: list[str]) -> dict[str, Any]:
    """Titles and genres that texts name, against what they may; genres also against another user's."""
    named = [grounding(text, titles, catalogue) for text, titles in zip(texts, allowed, strict=True)]
    labels = sorted(set().union(*genres_of(leave_one_out_split().data)) - {"unknown"})
    claimed = [labels_named(text, labels) for text in texts]
    claims = [row for row, names in enumerate(claimed) if names]

    def right(shift: int) -> dict[str, float]:
        other = [genres[(row + shift) % len(genres)] for row in claims]
        return mean_with_interval(
            [len(claimed[row] & own) / len(claimed[row]) for row, own in zip(claims, other, strict=True)]
        )

    return {
        "names a foreign title": mean_with_interval([bool(one.foreign) for one in named]),
        "names a title": mean_with_interval([bool(one.known or one.foreign) for one in named]),
        "foreign titles": sorted({title for one in named for title in one.foreign}),
        "claims a genre": mean_with_interval([bool(names) for names in claimed]),
        "claimed genres that are right": right(0) if claims else None,
        "the same for another user": right(1) if claims else None,
    }


def llm_memory(partial: Path) -> dict[str, Any]:
    """Years, endings of titles and genres from SmolLM2's memory; linear probes of MiniLM's vectors of bare titles."""
    split = leave_one_out_split()
    data = split.data
    films = [item for item, year in enumerate(data.items["year"]) if year is not None]
    asked = np.sort(np.random.default_rng(SEED).permutation(films)[:FILMS])
    titles, years = titles_of(data), np.array([year or 0 for year in data.items["year"]])
    genres, counts = genres_of(data), split.counts
    labels = sorted(set().union(*(genres[item] for item in films)) - {"unknown"})
    result: dict[str, Any] = {"config": CONFIG | {"films": FILMS}}

    known = [str(year) for year in range(years[films].min(), years[films].max() + 1)]
    answers = in_blocks(
        partial, "year", len(asked), lambda rows: ask_years([titles[asked[row]] for row in rows], known)
    )
    result["year"] = year_memory(np.array(answers["year"]), years[asked], counts[asked])

    answers = in_blocks(
        partial, "genre", len(asked), lambda rows: ask_genres([titles[asked[row]] for row in rows], labels)
    )
    result["genre"] = genre_memory(np.array(answers["log_prob"]), [genres[item] for item in asked], labels)

    long = [title for title in titles if len(title.split()) >= 4]
    answers = in_blocks(partial, "ending", len(long), lambda rows: ask_endings([long[row] for row in rows]))
    result["ending"] = {
        "completed": mean_with_interval(answers["right"]),
        "another film's ending": mean_with_interval(answers["other"]),
        "examples": [title for title, right in zip(long, answers["right"], strict=True) if right][:20],
    }

    answers = in_blocks(partial, "likelihood", len(titles), lambda rows: ask_titles([titles[row] for row in rows]))
    total, tokens = np.array(answers["total"]), np.array(answers["tokens"])
    result["likelihood and popularity"] = {
        "total": rank_correlation(total, counts),
        "per token": rank_correlation(total / tokens, counts),
        "tokens": rank_correlation(-tokens, counts),
    }
    result["probes"] = probes(
        [titles[item] for item in films], years[films], counts[films], [genres[item] for item in films], labels
    )
    return result


def ask_years(titles: list[str], known: list[str]) -> dict[str, list]:
    """The most likely year of each title; all years share their century, which stands in the prompt."""
    century = known[0][:2]
    assert all(year.startswith(century) for year in known)
    answers = []
    for title in titles:
        prompt = f'The film "{title}" was first shown in the year {century}'
        log_prob, _ = language_model().log_likelihood(prompt, [year[2:] for year in known])
        answers.append(int(known[int(log_prob.argmax())]))
    return {"year": answers}


def year_memory(answered: np.ndarray, true: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    """Hits within 0 and 1 years: of the answers, of the best constant, and of the answers to another title."""
    result: dict[str, Any] = {
        "answers": {int(year): int(n) for year, n in zip(*np.unique(answered, return_counts=True), strict=True)}
    }
    popular = counts >= np.median(counts)
    for within in (0, 1):
        hit = np.abs(answered - true) <= within
        constant = max(np.unique(true), key=lambda year: (np.abs(true - year) <= within).sum())
        others = np.stack([np.abs(np.roll(answered, shift) - true) <= within for shift in range(1, len(true))])
        result[f"within {within}"] = {
            "answers": mean_with_interval(hit),
            "more popular half": mean_with_interval(hit[popular]),
            "less popular half": mean_with_interval(hit[~popular]),
            f"always {constant}": mean_with_interval(np.abs(true - constant) <= within),
            "another title's answer": mean_with_interval(others.mean(0)),
        }
    result["correlation"] = rank_correlation(answered, true)
    return result


def ask_genres(titles: list[str], labels: list[str]) -> dict[str, list]:
    """Log-probability of each genre's name after each title, less that after no title."""
    names = [f" {label}" for label in labels]
    plain, _ = language_model().log_likelihood("The genre of the film is", names)
    rows = [language_model().log_likelihood(f'The genre of the film "{title}" is', names)[0] for title in titles]
    return {"log_prob": [[row.tolist(), (row - plain).tolist()] for row in rows]}


def genre_memory(log_prob: np.ndarray, true: list[set[str]], labels: list[str]) -> dict[str, Any]:
    """Whether the likeliest genre is one of the film's: plain, calibrated, for another title, and the best constant."""
    is_true = np.array([[label in names for label in labels] for names in true])  # (n, labels)
    rows = np.arange(len(true))
    result: dict[str, Any] = {
        f"always {labels[is_true.mean(0).argmax()]}": mean_with_interval(is_true[:, is_true.mean(0).argmax()])
    }
    for number, name in enumerate(("likelihood", "calibrated")):
        best = log_prob[:, number].argmax(1)
        others = np.stack([is_true[rows, np.roll(best, shift)] for shift in range(1, len(true))])
        auc = [
            roc_auc_score(is_true[:, label], log_prob[:, number, label])
            for label in range(len(labels))
            if is_true[:, label].any()
        ]
        result[name] = {
            "right": mean_with_interval(is_true[rows, best]),
            "another title's answer": mean_with_interval(others.mean(0)),
            "mean AUC": float(np.mean(auc)),
        }
    return result


def ask_endings(titles: list[str]) -> dict[str, list]:
    """Whether the second half of a title is written after its first half, and whether another title's is."""
    halves = [
        (" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])) for words in map(str.split, titles)
    ]
    prompts = [f'The title of the film is "{first}' for first, _ in halves]
    written = [one.text.strip().casefold() for one in language_model().generate(prompts, max_new_tokens=16)]
    endings = [second.casefold() for _, second in halves]
    others = endings[1:] + endings[:1]
    return {
        "right": [text.startswith(ending) for text, ending in zip(written, endings, strict=True)],
        "other": [text.startswith(ending) for text, ending in zip(written, others, strict=True)],
    }


def ask_titles(titles: list[str]) -> dict[str, list]:
    """Log-probability of each title with its closing quotation mark, in a sentence that announces one."""
    total, tokens = language_model().log_likelihood("The title of the film is", [f' "{title}"' for title in titles])
    return {"total": total.tolist(), "tokens": tokens.tolist()}


def rank_correlation(first: np.ndarray, second: np.ndarray, samples: int = 2_000) -> dict[str, float]:
    """Spearman's correlation with a 95 % bootstrap interval over films."""
    rng = np.random.default_rng(SEED)
    draws = rng.integers(len(first), size=(samples, len(first)))
    low, high = np.quantile([spearmanr(first[draw], second[draw]).statistic for draw in draws], [0.025, 0.975])
    return {"mean": float(spearmanr(first, second).statistic), "low": float(low), "high": float(high), "n": len(first)}


def probes(
    titles: list[str], years: np.ndarray, counts: np.ndarray, genres: list[set[str]], labels: list[str]
) -> dict[str, Any]:
    """Out-of-fold ridge predictions from bare titles: MiniLM's vectors beside TF-IDF."""
    inputs = {
        "minilm": LanguageEncoder("minilm").encode(titles).numpy(),
        "tfidf": TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+").fit_transform(titles).toarray(),
    }
    folds = KFold(5, shuffle=True, random_state=SEED)
    result: dict[str, Any] = {}
    for name, x in inputs.items():

        def predicted(y: np.ndarray, x: np.ndarray = x) -> np.ndarray:
            return cross_val_predict(RidgeCV(np.logspace(-2, 3, 11)), x, y, cv=folds)

        has = {label: np.array([label in own for own in genres]) for label in labels}
        result[name] = {
            "year": rank_correlation(predicted(years), years),
            "log popularity": rank_correlation(predicted(np.log1p(counts)), counts),
            "genre, AUC": {label: float(roc_auc_score(y, predicted(y))) for label, y in has.items() if y.sum() >= 50},
        }
    return result


RUNS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "llm-ranker": llm_ranker,
    "llm-profiles": llm_profiles,
    "llm-memory": llm_memory,
}
