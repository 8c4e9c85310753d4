"""Stored runs of the chapter on fine-tuning. A fit is made once, in a process of its own, and shared between runs."""

import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parts import kept

from recsys_cl import workflow
from recsys_cl.book.forgetting import paraphrase_accuracy, similarity_correlation
from recsys_cl.data import cold_item_split, leave_one_out, load_movielens
from recsys_cl.evaluation import Evaluation, evaluate, holm, paired_test
from recsys_cl.recommenders import FineTuned, create
from recsys_cl.recommenders.ensemble import Ensemble
from recsys_cl.text import LanguageEncoder
from recsys_cl.training.pretraining import MaskedLanguageModel, pretrain
from recsys_cl.training.run import TrainingConfig

FITS = Path(__file__).parent / "partial" / "fits"
SEARCH_DRAWS, DRAWS, ADAPTER_DRAWS, REMEDY_DRAW = (0, 1), range(5), (0, 1), 0

Settings = dict[str, Any]
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
"""The same number of trials for each, the first being the defaults."""

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


def fit(settings: Settings, draw: int, seed: int) -> dict[str, Any]:
    """One fit: its validation curve, cost, and what is left of the language model. Test metrics lie beside it."""
    FITS.mkdir(parents=True, exist_ok=True)
    stem = stem_of(settings, draw, seed)
    return kept(stem.with_suffix(".json"), lambda: in_process(settings, draw, seed, stem))


def stem_of(settings: Settings, draw: int, seed: int) -> Path:
    """Where a fit is kept, by what it depends on."""
    name = "-".join(f"{key}={value}" for key, value in sorted(settings.items()))
    return FITS / f"{name.replace('/', '_').replace('.', '_')}--{draw}-{seed}"


def in_process(settings: Settings, draw: int, seed: int, stem: Path) -> dict[str, Any]:
    """The same in a fresh process, whose peak memory is that of the fit."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool_of_one:
        return pool_of_one.submit(fitted, settings, draw, seed, str(stem)).result()


def fitted(settings: Settings, draw: int, seed: int, stem: str) -> dict[str, Any]:
    split = cold_item_split(load_movielens(), seed=draw)
    started = time.perf_counter()
    model = create("minilm-tuned", **settings, seed=seed)
    assert isinstance(model, FineTuned)
    model.fit(split)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    evaluate(model, split.test).save(Path(f"{stem}.npz"))
    np.savez(f"{stem}-vectors.npz", **{name: tensor.numpy() for name, tensor in model.state.items()})
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
    }


def tested(settings: Settings, draw: int, seed: int) -> Evaluation:
    """Test metrics of a fit, which is made if it is missing."""
    fit(settings, draw, seed)
    return Evaluation.load(stem_of(settings, draw, seed).with_suffix(".npz"))


def search(partial: Path) -> dict[str, Any]:
    """The same number of trials for each way to learn, judged by NDCG@10 on validation items, over two draws."""
    table = {}
    for model, trials in TRIALS.items():
        rows = []
        for settings in trials:
            fits = [fit(settings, draw, seed=draw) for draw in SEARCH_DRAWS]
            validations = [one["validation"] for one in fits]
            rows.append(
                {
                    "settings": settings,
                    "validation": float(np.mean(validations)),
                    "validations": validations,
                    "curves": [one["curve"] for one in fits],
                    "seconds": float(np.mean([one["seconds"] for one in fits])),
                }
            )
        table[model] = {"trials": rows}
    return {"draws": list(SEARCH_DRAWS), "metric": "ndcg@10", "models": table}


def chosen(model: str) -> Settings:
    """Settings of the trial with the best mean validation."""
    trials = search(FITS)["models"][model]["trials"]
    return max(trials, key=lambda trial: trial["validation"])["settings"]


def main_comparison(partial: Path) -> dict[str, Any]:
    """Zero-shot, ridge, and three ways to learn, on cold items; and what each costs."""
    data = load_movielens()
    table = workflow.compare(data, split="cold-items", models=["minilm", "ridge"], seeds=5, draws=5, folder=partial)
    settings = {model: chosen(model) for model in TRIALS}
    fits = []
    for model in TRIALS:
        row = workflow.Row(model)
        for draw in DRAWS:
            made = fit(settings[model], draw, seed=draw)
            row.evaluations[draw] = tested(settings[model], draw, seed=draw)
            row.seconds += made["seconds"] / len(DRAWS)
            fits.append({"model": model} | made)
        table.rows.append(row)
    for model, option in ADAPTERS.items():
        fits += [
            {"model": model, "ndcg@10": tested(option, draw, seed=draw).mean()} | fit(option, draw, seed=draw)
            for draw in ADAPTER_DRAWS
        ]
    runs = {row.model: [one.mean() for one in row.evaluations.values()] for row in table.rows}
    tests = {model: vars(test) for model, test in table.tests().items()}
    return {**table.as_dict(), "runs": runs, "tests": tests, "settings": settings, "fits": fits}


def remedies(partial: Path) -> dict[str, Any]:
    """What is said to help against overfitting, one at a time, on one draw; differences to the plain fit are paired."""
    data = load_movielens()
    base, split = chosen("lora"), cold_item_split(data, seed=REMEDY_DRAW)
    plain = tested(base, REMEDY_DRAW, seed=REMEDY_DRAW)
    found = {
        remedy: (base | change, tested(base | change, REMEDY_DRAW, seed=REMEDY_DRAW))
        for remedy, change in REMEDIES.items()
    }
    found["ensemble of three seeds"] = (
        base,
        evaluate(Ensemble([member(base, seed) for seed in (0, 10, 20)]), split.test),
    )
    domain = base | {"model": str(domain_model(data.texts))}
    found["masked pre-training first"] = base, tested(domain, REMEDY_DRAW, seed=REMEDY_DRAW)
    tests = {
        remedy: paired_test(one.metrics["ndcg@10"], plain.metrics["ndcg@10"], one.user)
        for remedy, (_, one) in found.items()
    }
    corrected = holm(np.array([test.p_value for test in tests.values()])).tolist()
    rows = [{"remedy": "none", "settings": base, "ndcg": [plain.mean()]}]
    for (remedy, (settings, one)), p_value in zip(found.items(), corrected, strict=True):
        test = vars(tests[remedy]) | {"p_value": p_value}
        rows.append({"remedy": remedy, "settings": settings, "ndcg": [one.mean()]} | test)
    return {"draws": [REMEDY_DRAW], "rows": rows}


def member(settings: Settings, seed: int) -> FineTuned:
    """A fit of the ensemble, as far as scoring needs it."""
    fit(settings, REMEDY_DRAW, seed)
    model = create("minilm-tuned", **settings)
    assert isinstance(model, FineTuned)
    with np.load(f"{stem_of(settings, REMEDY_DRAW, seed)}-vectors.npz") as stored:
        model.state = {name: torch.from_numpy(stored[name]) for name in stored.files}
    return model


def domain_model(texts: list[str]) -> Path:
    """MiniLM after more masked pre-training on the catalogue's texts."""
    folder = FITS / "domain"
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


def pairs(partial: Path) -> dict[str, Any]:
    """Pairs of texts against blocks of the catalogue, at about the same time; and rankings of warm items."""
    data = load_movielens()
    cold = {
        "blocks": chosen("lora"),
        "pairs": LORA | {"user": "text", "pairs": 2000, "warmup": 10, "epochs": 2, "temperature": 0.05},
    }
    rows = [
        {"examples": name, "ndcg@10": tested(settings, draw, seed=draw).mean()} | fit(settings, draw, seed=draw)
        for name, settings in cold.items()
        for draw in SEARCH_DRAWS
    ]
    return {"draws": list(SEARCH_DRAWS), "rows": rows, "warm": warm(data, partial)}


def warm(data: Any, partial: Path) -> list[dict[str, Any]]:
    """NDCG@10 on warm items: leave-one-out, the full catalogue, one draw."""
    rows = []
    split = leave_one_out(data, seed=0)
    for name in ("popularity", "minilm", "ridge", *TRIALS):
        settings = chosen(name) if name in TRIALS else {}
        file = partial / f"warm-{name}.npz"
        if not file.exists():
            model = create("minilm-tuned", **settings) if name in TRIALS else create(name)
            evaluate(model.fit(split), split.test).save(file)
        one = Evaluation.load(file)
        low, high = one.interval()
        rows.append({"model": name, "ndcg@10": one.mean(), "low": low, "high": high})
    return rows


def decoder(partial: Path) -> dict[str, Any]:
    """SmolLM2 as an encoder, before and after LoRA on pairs of texts: a demonstration, one draw, one seed."""
    settings: Settings = {
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
    split = cold_item_split(load_movielens(), seed=0)
    before = create("minilm-tuned", **settings)
    assert isinstance(before, FineTuned)
    before.items = split.data.items
    before.encoder = LanguageEncoder("smollm2", pooling="last", max_length=before.max_length, precision="bfloat16")
    file = partial / "before.npz"
    if not file.exists():
        before.state = {"vectors": before.encoder.encode(split.data.texts)}
        evaluate(before, split.test).save(file)
    after = tested(settings, 0, seed=0)
    rows = [
        {"model": name, "ndcg@10": one.mean()} | dict(zip(("low", "high"), one.interval(), strict=True))
        for name, one in (("before", Evaluation.load(file)), ("after", after))
    ]
    return {"rows": rows, "fit": fit(settings, 0, seed=0)}


RUNS = {
    "fine-tune-search": search,
    "fine-tune": main_comparison,
    "fine-tune-remedies": remedies,
    "fine-tune-pairs": pairs,
    "fine-tune-decoder": decoder,
}
