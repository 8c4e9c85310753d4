"""Speed and memory of contrastive losses, forward and backward, beside other libraries' implementations.

    python benchmarks/losses.py

Contenders of a case take turns within every round, and what is reported is the median over rounds of the ratio to
the fastest peer of the same round, so that a busy machine slows all alike; all normalise what they are given. Memory
is the peak of a fresh process less what it held before, the inputs (normalised here) and their gradients included in
that. The result is book/results/losses.json.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from results import store
from torch import Tensor, nn

from recsys_cl.losses import info_nce_loss, nt_xent_loss, partition, symmetric_info_nce_loss

Loss = Callable[[Tensor, Tensor], Tensor]

TEMPERATURE = 0.05
DIMS = (64, 256)
INFO_NCE_BATCHES = (64, 256, 1024, 2048, 4096, 16384)
NT_XENT_BATCHES = (64, 256, 1024)
MEMORY_BATCHES = (16384, 65536)
SECONDS, ROUNDS = 4.0, 3  # how long to keep taking turns, and how many at least
LIMIT = 20 * 2**30  # bytes of address space for a process whose memory may explode


def info_nce(query: Tensor, item: Tensor) -> Tensor:
    return info_nce_loss(F.normalize(query), F.normalize(item), temperature=TEMPERATURE)


def dense(loss: Loss) -> Loss:
    """The same loss with all logits in one matrix, whatever their number."""

    def all_at_once(query: Tensor, item: Tensor) -> Tensor:
        threshold, partition.DENSE = partition.DENSE, sys.maxsize
        try:
            return loss(query, item)
        finally:
            partition.DENSE = threshold

    return all_at_once


def nt_xent(first: Tensor, second: Tensor) -> Tensor:
    return nt_xent_loss(first, second, temperature=TEMPERATURE)


def peers_of_info_nce() -> dict[str, Loss]:
    """MNRL, and the loss of its cached form in chunks of 1,024 rows, both without an encoder."""
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MultipleNegativesRankingLoss,
    )

    sentences_are_embeddings: Any = nn.Sequential(nn.Identity())
    plain = MultipleNegativesRankingLoss(sentences_are_embeddings, scale=1 / TEMPERATURE)
    cached = CachedMultipleNegativesRankingLoss(sentences_are_embeddings, scale=1 / TEMPERATURE, mini_batch_size=1024)

    def features(query: Tensor, item: Tensor) -> list[dict[str, Tensor]]:
        return [{"sentence_embedding": query}, {"sentence_embedding": item}]

    def cached_loss(query: Tensor, item: Tensor) -> Tensor:
        return cached.calculate_loss([[query], [item]], with_backward=True)

    return {
        "sentence-transformers MNRL": lambda query, item: plain(features(query, item), torch.empty(0)),
        "sentence-transformers CachedMNRL": cached_loss,
    }


def peers_of_nt_xent() -> dict[str, Loss]:
    from pytorch_metric_learning.losses import NTXentLoss

    loss = NTXentLoss(temperature=TEMPERATURE)

    def both(first: Tensor, second: Tensor) -> Tensor:
        labels = torch.arange(len(first)).repeat(2)
        return loss(torch.cat([first, second]), labels)

    return {"pytorch-metric-learning NTXentLoss": both}


def inputs(batch: int, dim: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(batch, dim, generator=generator) for _ in range(2))
    return F.normalize(first, out=first).requires_grad_(), F.normalize(second, out=second).requires_grad_()


def once(loss: Loss, query: Tensor, item: Tensor) -> tuple[float, float]:
    """Seconds for forward and backward, and the value."""
    query.grad = item.grad = None
    started = time.perf_counter()
    value = loss(query, item)
    if value.requires_grad:  # the cached peer has been backward already
        value.backward()
    return time.perf_counter() - started, float(value.detach())


def race(contenders: dict[str, Loss], peers: set[str], batch: int, dim: int) -> list[dict[str, Any]]:
    """Rounds in which every contender runs once, after one round to warm up; one row for each contender."""
    query, item = inputs(batch, dim)
    values = {name: once(loss, query, item)[1] for name, loss in contenders.items()}
    assert max(values.values()) - min(values.values()) < 1e-3, values
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    began = time.perf_counter()
    while len(seconds[next(iter(seconds))]) < ROUNDS or time.perf_counter() - began < SECONDS:
        for name, loss in contenders.items():
            seconds[name].append(once(loss, query, item)[0])
    fastest = [min(seconds[name][turn] for name in peers) for turn in range(len(seconds[next(iter(seconds))]))]
    return [
        {
            "batch": batch,
            "dim": dim,
            "loss": name,
            "milliseconds": 1e3 * statistics.median(times),
            "ratio": statistics.median(mine / best for mine, best in zip(times, fastest, strict=True)),
            "rounds": len(times),
        }
        for name, times in seconds.items()
    ]


def with_everything(form: Callable[..., Tensor]) -> Loss:
    """Masked by equal item numbers, corrected by logQ, at a learned temperature: nothing of size B × B exists."""

    def loss(query: Tensor, item: Tensor) -> Tensor:
        numbers = torch.arange(len(item)) % (len(item) // 2)
        log_q = torch.linspace(-9, -3, len(item))
        temperature = torch.tensor(TEMPERATURE, requires_grad=True)

        def same(rows: slice) -> Tensor:
            return numbers[rows, None] == numbers

        return form(query, item, temperature=temperature, mask=same, log_q=log_q)

    return loss


MEASURED: dict[str, Loss] = {
    "InfoNCE": lambda query, item: info_nce_loss(query, item, temperature=TEMPERATURE),
    "InfoNCE, mask, logQ, learned temperature": with_everything(info_nce_loss),
    "symmetric, mask, logQ, learned temperature": with_everything(symmetric_info_nce_loss),
}
MEASURED |= {f"{name}: dense": dense(loss) for name, loss in MEASURED.items()}


def measure(name: str, batch: int, dim: int) -> dict[str, float]:
    """Peak memory beyond inputs and gradients, in MiB, and seconds; meant for a process of its own."""
    loss = MEASURED[name]
    once(loss, *inputs(1100, dim))  # what libraries allocate once
    query, item = inputs(batch, dim)
    held = _resident() + 2 * query.numel() * query.element_size()  # the gradients are still to come
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    seconds, _ = once(loss, query, item)
    return {"mebibytes": (_peak() - held) / 2**20, "seconds": seconds}


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def _resident() -> int:
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def in_own_process(*arguments: str) -> dict[str, Any] | None:
    """The JSON that this file prints when called with the arguments, or None if it ran out of memory."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        if "memory" in done.stderr or done.returncode == -9:
            return None
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def alone(batch: int, dim: int) -> list[dict[str, Any]]:
    """Our NT-Xent where its peer does not fit: no ratio for either, no time for the peer."""
    ours = race({"recsys_cl NT-Xent": nt_xent}, {"recsys_cl NT-Xent"}, batch, dim)
    return [row | {"ratio": None} for row in ours] + [
        {"batch": batch, "dim": dim, "loss": name, "milliseconds": None, "ratio": None} for name in peers_of_nt_xent()
    ]


def everything() -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for dim in DIMS:
        for batch in INFO_NCE_BATCHES:
            peers = peers_of_info_nce()
            rows += race({"recsys_cl InfoNCE": info_nce, **peers}, set(peers), batch, dim)
            print(*rows[-3:], sep="\n", flush=True)
    for batch in NT_XENT_BATCHES:
        found = in_own_process("--nt-xent", str(batch), "--dim", str(DIMS[0]))
        rows += found["rows"] if found else alone(batch, DIMS[0])
        print(rows[-1], flush=True)
    memory = []
    for batch in MEMORY_BATCHES:
        for name in MEASURED:
            if name.endswith("dense") and batch > MEMORY_BATCHES[0]:
                continue  # every matrix would take 16 GiB
            found = in_own_process("--memory", name, "--batch", str(batch), "--dim", str(DIMS[-1]))
            memory.append({"batch": batch, "dim": DIMS[-1], "loss": name, **(found or {})})
            print(memory[-1], flush=True)
    return {"rows": rows, "memory": memory, "temperature": TEMPERATURE}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", choices=MEASURED, help=argparse.SUPPRESS)
    parser.add_argument("--nt-xent", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--dim", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        print(json.dumps(measure(options.memory, options.batch, options.dim)))
    elif options.nt_xent:
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
        peers = peers_of_nt_xent()
        print(
            json.dumps(
                {"rows": race({"recsys_cl NT-Xent": nt_xent, **peers}, set(peers), options.nt_xent, options.dim)}
            )
        )
    else:
        store("losses", "losses.py", everything)


if __name__ == "__main__":
    main()
