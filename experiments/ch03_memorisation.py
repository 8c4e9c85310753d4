"""Chapter 3 experiment: what small language models have memorised about films, probed by bare titles.

SmolLM2 is asked for years, genres and the second halves of titles; MiniLM's vectors are probed by ridge regression.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ch03_language_models import SEED, language_model, leave_one_out_split
from common import Experiment, Parts, genres_of, mean_with_interval
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, cross_val_predict

from recsys_cl.text import LanguageEncoder

FILMS = 500  # films asked about one by one


def llm_memory(parts: Parts) -> dict[str, Any]:
    """Ask SmolLM2 for years, endings of titles and genres, and probe MiniLM's vectors of bare titles."""
    split = leave_one_out_split()
    data = split.data
    films = [item for item, year in enumerate(data.items["year"]) if year is not None]
    asked = np.sort(np.random.default_rng(SEED).permutation(films)[:FILMS])
    titles, years = data.titles, np.array([year or 0 for year in data.items["year"]])
    genres, counts = genres_of(data), split.counts
    labels = sorted(set().union(*(genres[item] for item in films)) - {"unknown"})
    result: dict[str, Any] = {"config": {"model": "smollm2", "precision": "bfloat16", "films": FILMS, "seed": SEED}}

    known = [str(year) for year in range(years[films].min(), years[films].max() + 1)]
    answers = parts.in_blocks("year", len(asked), lambda rows: ask_years([titles[asked[row]] for row in rows], known))
    result["year"] = year_memory(np.array(answers["year"]), years[asked], counts[asked])

    answers = parts.in_blocks(
        "genre", len(asked), lambda rows: ask_genres([titles[asked[row]] for row in rows], labels)
    )
    result["genre"] = genre_memory(np.array(answers["log_prob"]), [genres[item] for item in asked], labels)

    long = [title for title in titles if len(title.split()) >= 4]
    answers = parts.in_blocks("ending", len(long), lambda rows: ask_endings([long[row] for row in rows]))
    result["ending"] = {
        "completed": mean_with_interval(answers["right"]),
        "another film's ending": mean_with_interval(answers["other"]),
        "examples": [title for title, right in zip(long, answers["right"], strict=True) if right][:20],
    }

    answers = parts.in_blocks("likelihood", len(titles), lambda rows: ask_titles([titles[row] for row in rows]))
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
    """Return the most likely year of each title; the prompt gives the century, which all years share."""
    century = known[0][:2]
    assert all(year.startswith(century) for year in known)
    answers = []
    for title in titles:
        prompt = f'The film "{title}" was first shown in the year {century}'
        log_prob, _ = language_model().log_likelihood(prompt, [year[2:] for year in known])
        answers.append(int(known[int(log_prob.argmax())]))
    return {"year": answers}


def year_memory(answered: np.ndarray, true: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    """Return hits within 0 and 1 years of the answers, the best constant, and the answers to other titles."""
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
    """Return the log-probability of each genre after each title, plain and minus that without a title."""
    names = [f" {label}" for label in labels]
    plain, _ = language_model().log_likelihood("The genre of the film is", names)
    rows = [language_model().log_likelihood(f'The genre of the film "{title}" is', names)[0] for title in titles]
    return {"log_prob": [[row.tolist(), (row - plain).tolist()] for row in rows]}


def genre_memory(log_prob: np.ndarray, true: list[set[str]], labels: list[str]) -> dict[str, Any]:
    """Return how often the likeliest genre is right, beside other titles' answers and the best constant."""
    is_true = np.array([[label in names for label in labels] for names in true])  # (n, labels)
    rows = np.arange(len(true))
    common = int(is_true.sum(0).argmax())
    result: dict[str, Any] = {f"always {labels[common]}": mean_with_interval(is_true[:, common])}
    for number, name in enumerate(("likelihood", "calibrated")):
        best = log_prob[:, number].argmax(1)
        others = np.stack([is_true[rows, np.roll(best, shift)] for shift in range(1, len(true))])
        result[name] = {
            "right": mean_with_interval(is_true[rows, best]),
            "another title's answer": mean_with_interval(others.mean(0)),
        }
    return result | {"AUC": mean_auc(log_prob[:, 0], is_true, labels)}


def ask_endings(titles: list[str]) -> dict[str, list]:
    """Return whether the model completes each title from its first half, and whether with another title's ending."""
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
    """Return the log-probability and the token count of each quoted title after a prompt that announces a title."""
    total, tokens = language_model().log_likelihood("The title of the film is", [f' "{title}"' for title in titles])
    return {"total": total.tolist(), "tokens": tokens.tolist()}


def rank_correlation(first: np.ndarray, second: np.ndarray, samples: int = 2_000) -> dict[str, float]:
    """Return Spearman's correlation with its 95 % bootstrap interval over films."""
    rng = np.random.default_rng(SEED)
    draws = rng.integers(len(first), size=(samples, len(first)))
    low, high = np.quantile([spearmanr(first[draw], second[draw]).statistic for draw in draws], [0.025, 0.975])
    return {"mean": float(spearmanr(first, second).statistic), "low": float(low), "high": float(high), "n": len(first)}


def mean_auc(scores: np.ndarray, truth: np.ndarray, labels: list[str], samples: int = 200) -> dict[str, Any]:
    """Return the mean AUC, with an interval over films, of labels with at least 10 positive and 10 negative films."""
    frequent = np.flatnonzero((truth.sum(0) >= 10) & ((~truth).sum(0) >= 10))
    by_label = {labels[label]: float(roc_auc_score(truth[:, label], scores[:, label])) for label in frequent}
    means = []
    for draw in np.random.default_rng(SEED).integers(len(truth), size=(samples, len(truth))):
        drawn = [label for label in frequent if 0 < truth[draw, label].sum() < len(draw)]
        means.append(np.mean([roc_auc_score(truth[draw, label], scores[draw, label]) for label in drawn]))
    low, high = np.quantile(means, [0.025, 0.975])
    mean = float(np.mean(list(by_label.values())))
    return {"mean": mean, "low": float(low), "high": float(high), "n": len(truth), "by label": by_label}


def probes(
    titles: list[str], years: np.ndarray, counts: np.ndarray, genres: list[set[str]], labels: list[str]
) -> dict[str, Any]:
    """Score out-of-fold ridge predictions from bare titles, by MiniLM and by TF-IDF."""
    inputs = {
        "minilm": LanguageEncoder("minilm").encode(titles).numpy(),
        "tfidf": TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+").fit_transform(titles).toarray(),
    }
    folds = KFold(5, shuffle=True, random_state=SEED)
    result: dict[str, Any] = {}
    for name, x in inputs.items():

        def predicted(y: np.ndarray, x: np.ndarray = x) -> np.ndarray:
            return cross_val_predict(RidgeCV(np.logspace(-2, 3, 11)), x, y, cv=folds)

        truth = np.array([[label in own for label in labels] for own in genres])  # (n, labels)
        result[name] = {
            "year": rank_correlation(predicted(years), years),
            "log popularity": rank_correlation(predicted(np.log1p(counts)), counts),
            "genre": mean_auc(np.stack([predicted(column) for column in truth.T], axis=1), truth, labels),
        }
    return result


RUNS: dict[str, Experiment] = {"llm-memory": llm_memory}
