"""Causal language models (decoders): likelihood and perplexity of texts, and text generation.

See: chapter 1 (what a decoder computes), chapter 3 (recommending with it).
"""

from __future__ import annotations

import copy
import os
import time
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from recsys_cl.errors import InputError
from recsys_cl.randomness import counter_uniform
from recsys_cl.text.decoding import (
    Generation,
    common_prefix,
    continuation_log_likelihood,
    sample_token,
    start_id,
    stop_ids,
)
from recsys_cl.text.storage import Pretrained, choose_device, find_pretrained

PRECISIONS = ("auto", "float32", "bfloat16")

SCORED_AT_ONCE = 1024
"""Continuation tokens per forward pass: their logits over a vocabulary of 50,000 take 200 MB."""


class LanguageModel:
    """Score and write text with any Hugging Face causal language model.

    Weights are read from safetensors only (GGUF is converted first), without remote code. Prompts are plain text:
    wrap an instruction with :meth:`chat`.

    Args:
        model: An asset (``"smollm2"``), a folder, or a hub name such as ``"HuggingFaceTB/SmolLM2-360M-Instruct"``.
        revision: Commit, tag or branch of a hub name; give a commit for reproducible results.
        device: Device; ``None`` takes CUDA, then MPS, then the CPU.
        max_length: Maximum number of tokens of prompt and continuation together (capped at the model's own limit).
        batch_size: Number of prompts to continue in parallel.
        precision: ``"float32"``; ``"bfloat16"`` halves the memory and, if the processor supports it, at least halves
            the time, at a precision of about three digits; ``"auto"`` takes bfloat16 on CUDA.

    Attributes:
        name: Name of the model.
        model: The transformer itself.
        tokenizer: Tokenizer of the model.

    Raises:
        InputError: If the model or an option is unknown, or the model is not a causal language model.
        AssetError: If a named asset cannot be fetched.

    See: chapter 1, chapter 3.

    Example:
        >>> smollm2 = LanguageModel("smollm2")  # doctest: +SKIP
        >>> smollm2.log_likelihood("The capital of France is", [" Paris", " Berlin"])[0].argmax()  # doctest: +SKIP
        tensor(0)
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "smollm2",
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
        max_length: int = 2048,
        batch_size: int = 16,
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
    ) -> None:
        for option, value, minimum in (("max_length", max_length, 2), ("batch_size", batch_size, 1)):
            if value < minimum:
                raise InputError(f"{option}={value} is too small; give {minimum} or more")
        if precision not in PRECISIONS:
            raise InputError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
        self.device, self.batch_size = choose_device(device), batch_size
        half = precision == "bfloat16" or (
            precision == "auto" and self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        )
        found = find_pretrained(model, revision)
        self.name = found.name
        self.tokenizer, self.model = _load(found, torch.bfloat16 if half else torch.float32)
        self.model.to(self.device).eval()
        config = self.model.config.get_text_config()
        self.max_length = min(max_length, getattr(config, "max_position_embeddings", None) or max_length)
        self._stops = stop_ids(self.tokenizer, self.model)
        self._start = start_id(self.tokenizer, self.name)
        self._starts_itself = bool(self.tokenizer("")["input_ids"])

    def chat(self, message: str, *, system: str | None = None) -> str:
        """Turn a message into a prompt by the model's chat template.

        Args:
            message: Message of the user.
            system: System message; ``None`` leaves it to the template.

        Raises:
            InputError: If the model has no chat template.
        """
        if not self.tokenizer.chat_template:
            raise InputError(f"{self.name!r} has no chat template: give prompts as plain text, or a model for chat")
        messages = [{"role": "system", "content": system}] if system is not None else []
        messages.append({"role": "user", "content": message})
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def log_likelihood(self, prompt: str, continuations: Sequence[str]) -> tuple[Tensor, Tensor]:
        r"""Log-likelihood of each continuation of a prompt, which is encoded once for all of them.

        .. math:: \log p(c \mid x) = \sum_{t=1}^{|c|} \log p(c_t \mid x, c_{<t})

        A tokenizer may merge the end of the prompt with what follows. Prompt and continuation are therefore tokenised
        as one text, and scoring starts after the longest token prefix that the prompt and all texts share: at the same
        position for all continuations of a call.

        Args:
            prompt: Prompt; may be empty. A space before the continuation belongs to the continuation, not the prompt.
            continuations: Any number of texts, none of them empty.

        Returns:
            Log-probability in nats and number of tokens of each continuation, both ``(n,)``.

        Raises:
            InputError: If a continuation is empty, or does not fit into the context.
        """
        _strings("continuations", continuations)
        texts = [self._ids(prompt + text) for text in continuations]
        shared = common_prefix([self._ids(prompt), *texts])
        rests = [ids[shared:] for ids in texts]
        longest = max(map(len, rests), default=0)
        if longest > self.max_length - 1:
            raise InputError(
                f"continuation {[len(rest) for rest in rests].index(longest)} has {longest:,} tokens; the context of "
                f"{self.name!r} holds {self.max_length:,}: shorten it"
            )
        for row, rest in enumerate(rests):
            if not rest:
                raise InputError(f"continuation {row} is empty: there is nothing to score")
        (prefix,) = self._keep_ends([texts[0][:shared] if texts else []], self.max_length - longest)
        return self._score(prefix, rests)

    def perplexity(self, texts: Sequence[str]) -> Tensor:
        r"""Perplexity of each text: the effective number of equally likely next tokens.

        .. math:: \exp\Bigl(-\frac{1}{T} \sum_{t=1}^T \log p(x_t \mid x_{<t})\Bigr)

        Args:
            texts: Texts; those longer than the context are truncated, with a warning.

        Returns:
            ``(n,)`` perplexity per token. It is comparable only between models that share a tokenizer.

        Raises:
            InputError: If a text is empty.

        See: chapter 1.
        """
        _strings("texts", texts)
        rows = [self._ids(text) for text in texts]
        for row, ids in enumerate(rows):
            if len(ids) < 2:
                raise InputError(f"text {row} is empty: it has no perplexity")
        long = [len(ids) for ids in rows if len(ids) > self.max_length]
        if long:
            warnings.warn(
                f"{len(long):,} of {len(rows):,} texts are longer than {self.max_length:,} tokens and were cut; the "
                f"longest has {max(long):,}",
                stacklevel=2,
            )
        log_prob, tokens = self._score(rows[0][:1] if rows else [], [ids[1 : self.max_length] for ids in rows])
        return (-log_prob / tokens).exp()  # (n,)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        timeout: float | None = None,
    ) -> list[Generation]:
        """Continue each prompt.

        Random draws are keyed by the seed, the prompt's index and the number of tokens generated so far; other prompts
        have no influence (up to rounding, which depends on the width of a batch).

        Args:
            prompts: Any number of texts; one that leaves no room for ``max_new_tokens`` loses its beginning, with a
                warning.
            max_new_tokens: Maximum number of tokens to generate per prompt.
            temperature: Sampling temperature; 0 always takes the most likely token. See
                :func:`~recsys_cl.text.decoding.sample_token`.
            top_p: Probability mass of the most likely tokens to sample from (nucleus sampling).
            seed: Seed of the draws at ``temperature > 0``.
            timeout: Time limit of the whole call in seconds; returns what is generated by then. ``None`` sets no limit.

        Returns:
            One result per prompt, in their order.

        Raises:
            InputError: If an option is out of range.
        """
        _strings("prompts", prompts)
        if not 1 <= max_new_tokens < self.max_length:
            raise InputError(f"max_new_tokens={max_new_tokens}; give 1 to {self.max_length - 1} (the context less one)")
        if not 0 <= temperature < float("inf") or not 0 < top_p <= 1:
            raise InputError(
                f"temperature={temperature}, top_p={top_p}; give a temperature of at least 0 and top_p above 0, up to 1"
            )
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        ids = self._keep_ends([self._ids(prompt) for prompt in prompts], self.max_length - max_new_tokens)
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))  # similar lengths together: little padding
        done: dict[int, Generation] = {}
        with torch.inference_mode(), tqdm(total=len(ids), desc=self.name, unit="text", delay=5) as bar:
            for start in range(0, len(ids), self.batch_size):
                rows = order[start : start + self.batch_size]
                draws = counter_uniform(seed, np.array(rows)[:, None], np.arange(max_new_tokens))  # (B, steps)
                written = self._write(
                    [ids[row] for row in rows], torch.from_numpy(draws), temperature, top_p, deadline
                )  # (B, steps)
                over = written.shape[1] < max_new_tokens  # a row without a stop was cut short
                done |= {row: self._ended(one, over) for row, one in zip(rows, written.tolist(), strict=True)}
                bar.update(len(rows))
        return [done[row] for row in range(len(ids))]

    def _write(
        self, prompts: list[list[int]], draws: Tensor, temperature: float, top_p: float, deadline: float
    ) -> Tensor:
        """Tokens written after each prompt until all have stopped or the time is up, ``(batch, steps)``."""
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in prompts], device=self.device)  # (B, T)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=self.device)
        written = ids[:, :0]  # (B, 0)
        stopped = torch.zeros(len(ids), dtype=torch.bool, device=self.device)  # (B,)
        stops = torch.tensor(self._stops, dtype=ids.dtype, device=self.device)
        cache = None
        for u in draws.to(self.device).unbind(1):
            if stopped.all() or time.monotonic() > deadline:
                break
            positions = (mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]  # (B, T), then (B, 1)
            out = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = out.past_key_values
            ids = sample_token(out.logits[:, -1], u, temperature=temperature, top_p=top_p)[:, None]  # (B, 1)
            written = torch.cat([written, ids], dim=1)  # (B, step)
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
            stopped |= torch.isin(ids[:, 0], stops)
        return written

    def _ended(self, tokens: list[int], over: bool) -> Generation:
        """The text up to the first stop token; ``over`` says that time ran out before the maximum length."""
        end = next((place for place, token in enumerate(tokens) if token in self._stops), None)
        text = self.tokenizer.decode(tokens[:end], skip_special_tokens=True)
        finished: Literal["stop", "length", "timeout"] = "timeout" if over else "length"
        return Generation(text, len(tokens[:end]), finished if end is None else "stop")

    @torch.inference_mode()
    def _score(self, prefix: list[int], rests: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Log-probability and length of each row of tokens after the prefix, whose keys and values are shared."""
        lengths = torch.tensor([len(rest) for rest in rests], dtype=torch.long)  # (n,)
        if not rests:
            return torch.empty(0), lengths
        read = torch.tensor([prefix or [self._start]], device=self.device)  # (1, P)
        out = self.model(input_ids=read, use_cache=True, logits_to_keep=1)
        following = out.logits[0, -1].float().log_softmax(0)  # (V,): the first token of every row
        log_prob = following[[rest[0] for rest in rests]].cpu()  # (n,)
        order = [row for row in sorted(range(len(rests)), key=lambda row: -len(rests[row])) if len(rests[row]) > 1]
        with tqdm(total=len(order), desc=self.name, unit="text", delay=5) as bar:
            while order:
                size = max(1, SCORED_AT_ONCE // len(rests[order[0]]))
                rows, order = order[:size], order[size:]
                log_prob[rows] += self._score_batch(out.past_key_values, [rests[row] for row in rows]).cpu()
                bar.update(len(rows))
        return log_prob, lengths

    def _score_batch(self, cache: Any, rests: list[list[int]]) -> Tensor:
        """Log-probability of the second and later tokens of each row, given the prefix in the cache."""
        width = max(map(len, rests))
        ids = torch.tensor([rest + [0] * (width - len(rest)) for rest in rests], device=self.device)  # (B, T)
        mask = torch.tensor([[1] * len(rest) + [0] * (width - len(rest)) for rest in rests], device=self.device)
        before = mask.new_ones(len(rests), cache.get_seq_length())  # (B, P)
        cache = copy.deepcopy(cache)  # a forward pass appends to it
        cache.batch_repeat_interleave(len(rests))
        logits = self.model(
            input_ids=ids[:, :-1],
            attention_mask=torch.cat([before, mask[:, :-1]], dim=1),  # (B, P+T-1)
            past_key_values=cache,
        ).logits  # (B, T-1, V)
        return continuation_log_likelihood(logits, ids[:, 1:], mask[:, 1:])  # (B,)

    def _ids(self, text: str) -> list[int]:
        """Token ids with a start token: from the tokenizer, a chat template in the text, or added here."""
        bos = self.tokenizer.bos_token
        started = bool(bos) and text.startswith(bos)
        ids = list(self.tokenizer(text, add_special_tokens=not started, verbose=False)["input_ids"])
        return ids if started or self._starts_itself else [self._start, *ids]

    def _keep_ends(self, rows: list[list[int]], room: int) -> list[list[int]]:
        """Truncate prompts on the left, and warn once with their number."""
        long = [len(row) for row in rows if len(row) > room]
        if long:
            warnings.warn(
                f"{len(long):,} of {len(rows):,} prompts are longer than {room:,} tokens and lost their beginning; the "
                f"longest has {max(long):,}",
                stacklevel=3,
            )
        return [row[-room:] for row in rows]


def _load(found: Pretrained, dtype: torch.dtype) -> tuple[Any, Any]:
    """Tokenizer and model, both from one commit."""
    found = found.at_commit(getattr(found.load(AutoConfig), "_commit_hash", None))
    tokenizer = found.load(AutoTokenizer)
    options = {"use_safetensors": True, "dtype": dtype, "output_loading_info": True}
    model, report = found.load(AutoModelForCausalLM, **options)
    if report["missing_keys"]:
        raise InputError(
            f"{found.name!r} is not a causal language model: it has no weights for "
            f"{sorted(report['missing_keys'])[0]!r}; give a decoder, for example smollm2"
        )
    return tokenizer, model


def _strings(name: str, texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise InputError(f"{name} is one string: pass a list of strings, for example [text]")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"{name}[{row}] is {text!r} ({type(text).__name__}): pass strings")
