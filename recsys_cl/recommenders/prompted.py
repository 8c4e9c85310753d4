"""A language model asked in words: it ranks a few candidates, and writes about a user, without any training.

Histories and candidates are titles. Nothing here knows the catalogue of a recommender: a prompted model is too slow to
score thousands of items for everybody, and ranks what another model has retrieved.

See: chapter 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase

import numpy as np
import torch
from torch import Tensor

from recsys_cl.data import Queries
from recsys_cl.errors import InputError
from recsys_cl.text.decoder import LanguageModel
from recsys_cl.text.decoding import Generation


def sample_candidates(queries: Queries, weights: np.ndarray, *, n: int = 20, seed: int = 0) -> np.ndarray:
    """The target of each query among items that its user has not seen, in an order that does not tell which it is.

    Ranks among few candidates are no ranks in the catalogue, and depend on the weights: compare them only with each
    other, on the same candidates.

    Args:
        queries: One target each.
        weights: ``(n_items,)`` chance of an item to be drawn, up to a factor; 0 excludes it.
        n: Number of candidates, the target included.
        seed: A user's candidates are a function of this and the user's number.

    Returns:
        Item numbers, ``(queries, n)``.

    Raises:
        InputError: If a query has several targets, or a user has seen so much that ``n - 1`` items are not left.

    References:
        Krichene and Rendle (2020), On Sampled Metrics for Item Recommendation, KDD.

    See: chapter 3.
    """
    if (queries.target.lengths != 1).any():
        raise InputError("a query has several targets or none; use a leave-one-out split")
    candidates = np.empty((len(queries), n), dtype=np.int64)
    for row, user in enumerate(queries.user):
        rng = np.random.default_rng([seed, user])
        target = queries.target.items[queries.target.start[row]]
        free = weights.astype(np.float64)
        free[queries.history.items[queries.history.start[row] : queries.history.stop[row]]] = 0
        free[target] = 0
        if (left := np.count_nonzero(free)) < n - 1:
            raise InputError(f"user {user} has {left} unseen items with a weight; give n of at most {left + 1}")
        drawn = rng.choice(len(free), size=n - 1, replace=False, p=free / free.sum())
        candidates[row] = rng.permutation(np.append(drawn, target))
    return candidates


@dataclass(frozen=True, eq=False)
class Likelihoods:
    r"""Three scores from the same log-probabilities of a title :math:`c` after a history :math:`h`, each ``(n,)``.

    Attributes:
        total: :math:`\log p(c \mid h)`; long titles have more tokens to get wrong.
        mean: :math:`\log p(c \mid h) / |c|`, per token; rewards titles whose later tokens follow from their first.
        calibrated: :math:`\log p(c \mid h) - \log p(c \mid \emptyset)`, the pointwise mutual information of title and
            history; neither length nor fame of a title counts by itself.
    """

    total: Tensor
    mean: Tensor
    calibrated: Tensor


@dataclass
class LikelihoodRanker:
    """Rank candidates by how likely their titles are as the next ones of a list that the history begins.

    Attributes:
        model: A causal language model.
        last: How many of the latest titles the prompt names.
        opening: What stands before the titles; alone, it is the prompt of an empty history.

    References:
        Holtzman et al. (2021), Surface Form Competition, EMNLP (why to calibrate);
        Sileo et al. (2022), Zero-Shot Recommendation as Language Modeling, ECIR.

    See: chapter 3.
    """

    model: LanguageModel
    last: int = 20
    opening: str = "Recently watched, latest last:"
    _unprompted: dict[str, float] = field(default_factory=dict, init=False, repr=False)

    def prompt(self, history: Sequence[str]) -> str:
        """The list so far.

        >>> LikelihoodRanker(None, last=2, opening="Read:").prompt(["Emma", "Ulysses", "Dune"])
        'Read: Ulysses; Dune;'
        """
        return " ".join([self.opening, *(f"{title};" for title in history[len(history) - self.last :])])

    def score(self, history: Sequence[str], candidates: Sequence[str]) -> Likelihoods:
        """Score each candidate, larger is better.

        Args:
            history: Titles, oldest first; may be empty.
            candidates: Titles. Each is scored with the semicolon that ends it, so that the beginning of a longer
                title is not mistaken for a title.
        """
        total, tokens = self._entries(self.prompt(history), candidates)  # (n,), (n,)
        if new := [title for title in dict.fromkeys(candidates) if title not in self._unprompted]:
            self._unprompted |= dict(zip(new, self._entries(self.opening, new)[0].tolist(), strict=True))
        prior = torch.tensor([self._unprompted[title] for title in candidates])  # (n,)
        return Likelihoods(total, total / tokens, total - prior)

    def _entries(self, prompt: str, titles: Sequence[str]) -> tuple[Tensor, Tensor]:
        return self.model.log_likelihood(prompt, [f" {title};" for title in titles])


@dataclass
class ListRanker:
    r"""Rank candidates by the letter that a chat model answers when all of them stand in the prompt.

    With :math:`\pi` an order of the candidates, :math:`\ell_k` the letter of place :math:`k` and
    :math:`p_\pi(\ell_k \mid h)` its probability among the letters,

    .. math:: s_c = \frac{1}{|\Pi|} \sum_{\pi \in \Pi} \log p_\pi(\ell_{\pi(c)} \mid h).

    A model prefers some letters and places whatever stands there. The orders :math:`\Pi` are one shuffle, turned by
    equal steps, so that each candidate is seen at places all over the list.

    Attributes:
        model: A causal language model with a chat template.
        last: How many of the latest titles the prompt names.
        orders: Number of orders to average over.
        seed: Of the shuffle.
        opening: What stands before the history.
        question: What stands before the candidates.

    References:
        Hou et al. (2024), Large Language Models are Zero-Shot Rankers for Recommender Systems, ECIR.

    See: chapter 3.
    """

    model: LanguageModel
    last: int = 20
    orders: int = 5
    seed: int = 0
    opening: str = "I recently watched, latest last:"
    question: str = "Which of these should I watch next? Answer with one letter."

    def prompt(self, history: Sequence[str], candidates: Sequence[str]) -> str:
        """History and lettered candidates, in the model's chat template."""
        seen = "; ".join(history[len(history) - self.last :]) or "nothing"
        choices = "\n".join(f"{letter}. {title}" for letter, title in zip(ascii_uppercase, candidates, strict=False))
        return self.model.chat(f"{self.opening} {seen}.\n\n{self.question}\n{choices}")

    def label_log_probs(self, history: Sequence[str], candidates: Sequence[str]) -> Tensor:
        """Log-probability of the letter of each candidate in the order given, among all their letters, ``(n,)``.

        Raises:
            InputError: If there are more candidates than letters.
        """
        if len(candidates) > len(ascii_uppercase):
            raise InputError(f"{len(candidates)} candidates; give at most {len(ascii_uppercase)}, one for each letter")
        letters = ascii_uppercase[: len(candidates)]
        return self.model.log_likelihood(self.prompt(history, candidates), list(letters))[0].log_softmax(0)

    def by_place(self, history: Sequence[str], candidates: Sequence[str]) -> tuple[np.ndarray, Tensor]:
        """Every order that is asked, and what it answers: how much a place is preferred is read off here.

        Returns:
            Which candidate stands at each place, and its letter's log-probability, both ``(orders, n)``.
        """
        n = len(candidates)
        shuffled = np.random.default_rng(self.seed).permutation(n)
        places = np.stack([np.roll(shuffled, -(turn * n) // self.orders) for turn in range(self.orders)])
        answers = [self.label_log_probs(history, [candidates[item] for item in order]) for order in places]
        return places, torch.stack(answers)

    def score(self, history: Sequence[str], candidates: Sequence[str]) -> Tensor:
        """Mean log-probability of each candidate's letter over the orders, ``(n,)``, larger is better."""
        places, log_prob = self.by_place(history, candidates)
        return torch.zeros_like(log_prob).scatter(1, torch.from_numpy(places), log_prob).mean(0)  # (n,)


PROFILE = (
    "A viewer watched these films: {history}.\n"
    "Which genres and themes does this viewer like? Answer in one sentence, without naming a film."
)
REASON = (
    "A viewer watched these films: {history}.\n"
    "Why would this viewer enjoy the film {item}? Answer in one sentence that names one film of the list."
)


def write_profiles(
    model: LanguageModel,
    histories: Sequence[Sequence[str]],
    *,
    last: int = 20,
    template: str = PROFILE,
    max_new_tokens: int = 60,
    timeout: float | None = None,
) -> list[Generation]:
    """Let a chat model describe the taste behind each history, choosing the most likely word each time.

    Args:
        model: A causal language model with a chat template.
        histories: Titles of each user, oldest first.
        last: How many of the latest titles the prompt names.
        template: Instruction, with ``{history}`` where the titles go.
        max_new_tokens: Longest description.
        timeout: Seconds for all of them; see :meth:`~recsys_cl.text.decoder.LanguageModel.generate`.

    Returns:
        One text per history.

    References:
        Radlinski et al. (2022), On Natural Language User Profiles for Transparent and Scrutable Recommendation, SIGIR.

    See: chapter 3.
    """
    prompts = [model.chat(template.format(history=_titles(history, last))) for history in histories]
    return model.generate(prompts, max_new_tokens=max_new_tokens, timeout=timeout)


def write_reasons(
    model: LanguageModel,
    histories: Sequence[Sequence[str]],
    items: Sequence[str],
    *,
    last: int = 20,
    template: str = REASON,
    max_new_tokens: int = 60,
    timeout: float | None = None,
) -> list[Generation]:
    """Let a chat model justify one recommended title for each history; arguments as :func:`write_profiles`.

    Args:
        model: A causal language model with a chat template.
        histories: Titles of each user, oldest first.
        items: The title recommended to each.
        last: How many of the latest titles the prompt names.
        template: Instruction, with ``{history}`` and ``{item}``.
        max_new_tokens: Longest reason.
        timeout: Seconds for all of them.

    Raises:
        InputError: If there are not as many titles as histories.

    See: chapter 3 (the reasons are texts that fit, not causes: what they name is checked by
    :func:`~recsys_cl.book.grounding.grounding`).
    """
    if len(items) != len(histories):
        raise InputError(f"{len(histories)} histories but {len(items)} items; give one title for each history")
    prompts = [
        model.chat(template.format(history=_titles(history, last), item=item))
        for history, item in zip(histories, items, strict=True)
    ]
    return model.generate(prompts, max_new_tokens=max_new_tokens, timeout=timeout)


def _titles(history: Sequence[str], last: int) -> str:
    return "; ".join(history[len(history) - last :]) or "none"
