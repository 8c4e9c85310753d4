"""Chapter 6 experiments: full fine-tuning, adapters and projections compared, with each fit made once and shared."""

from __future__ import annotations

import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import PARTIAL, Experiment, Parts, Settings, best_settings, comparison, corrected, figures

from recsys_cl import workflow
from recsys_cl.book.forgetting import paraphrase_accuracy, similarity_correlation
from recsys_cl.data import Interactions, Split, cold_item_split, leave_one_out, load_movielens
from recsys_cl.evaluation import Evaluation, evaluate, paired_test
from recsys_cl.recommenders import FineTuned, Recommender, create
from recsys_cl.recommenders.models import Ensemble
from recsys_cl.text import LanguageEncoder
from recsys_cl.training.pretraining import MaskedLanguageModel, pretrain
from recsys_cl.training.run import TrainingConfig

SEARCH_DRAWS, DRAWS, ADAPTER_DRAWS, REMEDY_DRAW = (0, 1), range(5), (0, 1), 0

BFLOAT16: Settings = {"precision": "bfloat16"}
FULL: Settings = {"method": "full", "learning_rate": 5e-5, **BFLOAT16}
LORA: Settings = {"method": "lora", "learning_rate": 5e-4, **BFLOAT16}
PROJECTION: Settings = {"method": "projection", "residual": 0.0, "learning_rate": 3e-4}
TRIALS: dict[str, list[Settings]] = {
    "projection": [PROJECTION | change for change in ({}, {"learning_rate": 1e-4}, {"residual": 0.5}, {"passes": 6})],
    "lora": [LORA | change for change in ({}, {"residual": 0.0}, {"learning_rate": 1e-3}, {"residual": 1.0})],
    "full": [
        FULL | change
        for change in ({}, {"residual": 0.0}, {"learning_rate": 1e-5}, {"learning_rate": 2e-4, "warmup": 0})
    ],
}
"""Trials of each method: the same number, the default first."""

ADAPTERS: dict[str, Settings] = {
    "adalora": LORA | {"method": "adalora", "learning_rate": 2e-3},
    "ia3": LORA | {"method": "ia3", "learning_rate": 1e-2},
    "prefix": LORA | {"method": "prefix", "learning_rate": 1e-2},
}
REMEDIES: dict[str, Settings] = {
    "no weight decay, no dropout": {"weight_decay": 0.0, "dropout": 0.0},
    "weight decay 0.1": {"weight_decay": 0.1},
    "dropout 0.3": {"dropout": 0.3},
    "other templates": {"augment": "fragments"},
    "synonyms": {"augment": "synonyms"},
    "dropout views": {"views": 0.1},
}


def fits() -> Parts:
    """Return the fits made so far."""
    return Parts(PARTIAL / "fits", "fits")


def fit(settings: Settings, draw: int, seed: int) -> dict[str, Any]:
    """Return one fit: its figures, ``test`` metrics, and tensors that score (``state NAME``)."""
    fields = "-".join(f"{key}={value}" for key, value in sorted(settings.items()))
    of = {"settings": settings, "draw": draw, "seed": seed}
    return fits().keep(f"{fields}--{draw}-{seed}", partial(in_process, settings, draw, seed), of=of)


def in_process(settings: Settings, draw: int, seed: int) -> dict[str, Any]:
    """Fit in a fresh process, whose peak memory is that of the fit."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool_of_one:
        return pool_of_one.submit(fitted, settings, draw, seed).result()


def fitted(settings: Settings, draw: int, seed: int) -> dict[str, Any]:
    """Fit, and measure the validation curve, the cost, and what is left of the language model."""
    split = cold_item_split(load_movielens(), seed=draw)
    started = time.perf_counter()
    model = tuned(settings, seed=seed).fit(split)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    untouched = LanguageEncoder(model.model, pooling=model.pooling)
    return {
        "settings": settings,
        "draw": draw,
        "seed": seed,
        "parameters": list(model.parameters),
        "seconds": seconds,
        "peak_mb": peak,
        "validation": model.report.history[-1]["ndcg@10"],
        "curve": [epoch["ndcg@10"] for epoch in model.report.history],
        "paraphrases": paraphrase_accuracy(model.encoder.encode),
        "correlation": similarity_correlation(model.encoder.encode, untouched.encode),
        "test": evaluate(model, split.test),
    } | {f"state {name}": tensor.numpy() for name, tensor in model.state.items()}


def tuned(settings: Settings, **options: Any) -> FineTuned:
    """Return an untrained model that fine-tunes its encoder."""
    model = create("minilm-tuned", **settings, **options)
    assert isinstance(model, FineTuned)
    return model


def tested(settings: Settings, draw: int, seed: int) -> Evaluation:
    """Return the test metrics of a fit."""
    found: Evaluation = fit(settings, draw, seed)["test"]
    return found


def search_ways(parts: Parts) -> dict[str, Any]:
    """Give each way to learn the same number of trials, judged by NDCG@10 on validation items over two draws."""
    table = {}
    for model, trials in TRIALS.items():
        rows = []
        for settings in trials:
            made = [fit(settings, draw, seed=draw) for draw in SEARCH_DRAWS]
            validations = [one["validation"] for one in made]
            rows.append(
                {
                    "settings": settings,
                    "validation": float(np.mean(validations)),
                    "validations": validations,
                    "curves": [one["curve"] for one in made],
                    "seconds": float(np.mean([one["seconds"] for one in made])),
                }
            )
        table[model] = {"trials": rows}
    return {"draws": list(SEARCH_DRAWS), "metric": "ndcg@10", "models": table}


def chosen(model: str) -> Settings:
    """Return the settings of the trial with the best mean validation."""
    return best_settings("fine-tune-search", model, "validation")


def main_comparison(parts: Parts) -> dict[str, Any]:
    """Compare zero-shot, ridge and three ways to learn on cold items, with the cost of each."""
    table = workflow.compare(
        load_movielens(), split="cold-items", models=["minilm", "ridge"], seeds=5, draws=5, folder=parts.folder
    )
    settings = {model: chosen(model) for model in TRIALS}
    rows = []
    for model in TRIALS:
        row = workflow.Row(model)
        for draw in DRAWS:
            made = fit(settings[model], draw, seed=draw)
            row.evaluations[draw] = made["test"]
            row.seconds += made["seconds"] / len(DRAWS)
            rows.append({"model": model} | figures(made))
        table.rows.append(row)
    for model, option in ADAPTERS.items():
        rows += [{"model": model} | with_ndcg(option, draw) for draw in ADAPTER_DRAWS]
    return {**comparison(table), "settings": settings, "fits": rows}


def with_ndcg(settings: Settings, draw: int) -> dict[str, Any]:
    """Return the figures of a fit, among them NDCG@10 on the test items."""
    made = fit(settings, draw, seed=draw)
    return {"ndcg@10": made["test"].mean()} | figures(made)


def remedies(parts: Parts) -> dict[str, Any]:
    """Test the recommended remedies against overfitting, one at a time, against the plain fit on one draw."""
    data = load_movielens()
    base, split = chosen("lora"), cold_item_split(data, seed=REMEDY_DRAW)
    plain = tested(base, REMEDY_DRAW, seed=REMEDY_DRAW)
    found = {
        remedy: (base | change, tested(base | change, REMEDY_DRAW, seed=REMEDY_DRAW))
        for remedy, change in REMEDIES.items()
    }
    ensemble = Ensemble([member(base, seed) for seed in (0, 10, 20)])
    found["ensemble of three seeds"] = base, evaluate(ensemble, split.test)
    domain = base | {"model": str(domain_model(data.texts))}
    found["masked pre-training first"] = base, tested(domain, REMEDY_DRAW, seed=REMEDY_DRAW)
    tests = corrected(
        {
            remedy: vars(paired_test(one.metrics["ndcg@10"], plain.metrics["ndcg@10"], one.user))
            for remedy, (_, one) in found.items()
        }
    )
    rows = [{"remedy": "none", "settings": base, "ndcg": [plain.mean()]}]
    rows += [
        {"remedy": remedy, "settings": settings, "ndcg": [one.mean()]} | tests[remedy]
        for remedy, (settings, one) in found.items()
    ]
    return {"draws": [REMEDY_DRAW], "rows": rows}


def member(settings: Settings, seed: int) -> FineTuned:
    """Return a fit of the ensemble, as far as scoring needs it."""
    made = fit(settings, REMEDY_DRAW, seed)
    model = tuned(settings)
    state = {key.removeprefix("state "): made[key] for key in made if key.startswith("state ")}
    model.state = {name: torch.from_numpy(values) for name, values in state.items()}
    return model


def domain_model(texts: list[str]) -> Path:
    """Return the folder of MiniLM after further masked pre-training on the catalogue's texts."""
    folder = fits().folder / "domain"
    if not (folder / "encoder.json").exists():
        encoder = LanguageEncoder("minilm", cache=False)
        held_out = texts[::10]
        pretrain(
            MaskedLanguageModel(encoder.model),
            encoder.tokenizer,
            [text for number, text in enumerate(texts) if number % 10],
            validation_texts=held_out,
            config=TrainingConfig(epochs=2, batch_size=32, learning_rate=5e-5, patience=2, metric="log_likelihood"),
            max_length=32,
        )
        encoder.save(folder)
    return folder


def pairs(parts: Parts) -> dict[str, Any]:
    """Compare training on pairs of texts and on blocks of the catalogue at about equal time; rank warm items too."""
    cold = {
        "blocks": chosen("lora"),
        "pairs": LORA | {"user": "text", "pairs": 2000, "warmup": 10, "epochs": 2, "temperature": 0.05},
    }
    rows = [{"examples": name} | with_ndcg(settings, draw) for name, settings in cold.items() for draw in SEARCH_DRAWS]
    return {"draws": list(SEARCH_DRAWS), "rows": rows, "warm": warm(load_movielens(), parts)}


def warm(data: Interactions, parts: Parts) -> list[dict[str, Any]]:
    """Return NDCG@10 on warm items: leave-one-out, full catalogue, one draw."""
    split = leave_one_out(data, seed=0)
    rows = []
    for name in ("popularity", "minilm", "ridge", *TRIALS):
        settings = chosen(name) if name in TRIALS else None
        rows.append(row_of(name, parts.evaluation(f"warm-{name}", partial(warm_fit, name, settings, split))))
    return rows


def warm_fit(name: str, settings: Settings | None, split: Split) -> Evaluation:
    """Fit a registered model, or one that is fine-tuned if there are settings, and test it."""
    model: Recommender = create(name) if settings is None else tuned(settings)
    return evaluate(model.fit(split), split.test)


def row_of(name: str, one: Evaluation) -> dict[str, Any]:
    """Return NDCG@10 and its interval over users."""
    low, high = one.interval()
    return {"model": name, "ndcg@10": one.mean(), "low": low, "high": high}


DECODER: Settings = {
    "model": "smollm2",
    "pooling": "last",
    "method": "lora",
    "user": "text",
    "pairs": 512,
    "batch_size": 32,
    "epochs": 1,
    "warmup": 5,
    "learning_rate": 5e-4,
    "temperature": 0.05,
    **BFLOAT16,
}


def decoder(parts: Parts) -> dict[str, Any]:
    """Demonstrate SmolLM2 as an encoder, before and after LoRA on pairs of texts: one draw, one seed."""
    before = parts.evaluation("before", untuned_decoder)
    after = fit(DECODER, 0, seed=0)
    return {"rows": [row_of("before", before), row_of("after", after["test"])], "fit": figures(after)}


def untuned_decoder() -> Evaluation:
    """Test SmolLM2's embeddings without fine-tuning."""
    split = cold_item_split(load_movielens(), seed=0)
    model = tuned(DECODER)
    model.items = split.data.items
    model.encoder = LanguageEncoder("smollm2", pooling="last", max_length=model.max_length, precision="bfloat16")
    model.state = {"vectors": model.encoder.encode(split.data.texts)}
    return evaluate(model, split.test)


RUNS: dict[str, Experiment] = {
    "fine-tune-search": search_ways,
    "fine-tune": main_comparison,
    "fine-tune-remedies": remedies,
    "fine-tune-pairs": pairs,
    "fine-tune-decoder": decoder,
}
