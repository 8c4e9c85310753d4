"""Zero-shot LLM prompting: rank candidates, write user profiles, explain recommendations.

Histories and candidates are titles. The rankers do not know the catalogue of a recommender: a prompted model is too
slow to score thousands of items for every user, so it ranks the items that another model retrieved.

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
    """Sample candidates: the target of each query and unseen items of its user, in random order.

    Ranks among few candidates are not ranks in the catalogue, and depend on the weights: compare them only with each
    other, on the same candidates.

    Args:
        queries: Queries with one target each.
        weights: ``(n_items,)`` unnormalised probability that an item is drawn; 0 excludes it.
        n: Number of candidates, including the target.
        seed: Seed of the draws; a user's candidates are a function of the seed and the user number.

    Returns:
        ``(queries, n)`` item numbers.

    Raises:
        InputError: If a query does not have one target, or fewer than ``n - 1`` items are left for a user.

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
    r"""Three scores from the log-probability of a title :math:`c` after a history :math:`h`, each ``(n,)``.

    Attributes:
        total: :math:`\log p(c \mid h)`; lower for long titles, which have more tokens.
        mean: :math:`\log p(c \mid h) / |c|`, per token; higher for titles whose later tokens follow from the first.
        calibrated: :math:`\log p(c \mid h) - \log p(c \mid \emptyset)`, the pointwise mutual information of title and
            history; corrects for the length and popularity of a title.
    """

    total: Tensor
    mean: Tensor
    calibrated: Tensor


@dataclass
class LikelihoodRanker:
    """Likelihood ranker: rank candidates by the likelihood of their titles as the next entry in a list of the history.

    Attributes:
        model: A causal language model.
        last: Number of latest titles in the prompt.
        opening: Text before the titles; on its own it is the prompt for an empty history.

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
        """Prompt: the opening and the latest titles.

        >>> LikelihoodRanker(None, last=2, opening="Read:").prompt(["Emma", "Ulysses", "Dune"])
        'Read: Ulysses; Dune;'
        """
        return " ".join([self.opening, *(f"{title};" for title in history[len(history) - self.last :])])

    def score(self, history: Sequence[str], candidates: Sequence[str]) -> Likelihoods:
        """Score each candidate; larger is better.

        Args:
            history: Titles, oldest first; may be empty.
            candidates: Titles. Each is scored with a final semicolon, so a title is not confused with the beginning of
                a longer one.
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
    r"""List ranker: rank candidates by the probability of their letter when a chat model chooses from a lettered list.

    With :math:`\pi` an order of the candidates, :math:`\ell_k` the letter at position :math:`k` and
    :math:`p_\pi(\ell_k \mid h)` its probability among the letters,

    .. math:: s_c = \frac{1}{|\Pi|} \sum_{\pi \in \Pi} \log p_\pi(\ell_{\pi(c)} \mid h).

    A model prefers some letters and positions whatever the candidate there. The orders :math:`\Pi` are equally spaced
    rotations of one shuffle, so each candidate appears at positions throughout the list.

    Attributes:
        model: A causal language model with a chat template.
        last: Number of latest titles in the prompt.
        orders: Number of orders to average over.
        seed: Seed of the shuffle.
        opening: Text before the history.
        question: Text before the candidates.

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
        """Log-probability of each candidate's letter among all letters of the list, in the given order, ``(n,)``.

        Raises:
            InputError: If there are more candidates than letters.
        """
        if len(candidates) > len(ascii_uppercase):
            raise InputError(f"{len(candidates)} candidates; give at most {len(ascii_uppercase)}, one for each letter")
        letters = ascii_uppercase[: len(candidates)]
        return self.model.log_likelihood(self.prompt(history, candidates), list(letters))[0].log_softmax(0)

    def by_place(self, history: Sequence[str], candidates: Sequence[str]) -> tuple[np.ndarray, Tensor]:
        """Results by position for every order; they show the model's preference for positions.

        Returns:
            The candidate at each position, and the log-probability of its letter, both ``(orders, n)``.
        """
        n = len(candidates)
        shuffled = np.random.default_rng(self.seed).permutation(n)
        places = np.stack([np.roll(shuffled, -(turn * n) // self.orders) for turn in range(self.orders)])
        answers = [self.label_log_probs(history, [candidates[item] for item in order]) for order in places]
        return places, torch.stack(answers)

    def score(self, history: Sequence[str], candidates: Sequence[str]) -> Tensor:
        """Mean log-probability of each candidate's letter over the orders, ``(n,)``; larger is better."""
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
    """User profiles: a chat model describes the taste behind each history, with greedy decoding.

    Args:
        model: A causal language model with a chat template.
        histories: Titles of each user, oldest first.
        last: Number of latest titles in the prompt.
        template: Instruction with the placeholder ``{history}`` for the titles.
        max_new_tokens: Maximum number of generated tokens per profile.
        timeout: Time limit in seconds for all profiles; see :meth:`~recsys_cl.text.decoder.LanguageModel.generate`.

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
    """Explanations: a chat model justifies one recommended title for each history, with greedy decoding.

    Args:
        model: A causal language model with a chat template.
        histories: Titles of each user, oldest first.
        items: Recommended title of each user.
        last: Number of latest titles in the prompt.
        template: Instruction with the placeholders ``{history}`` and ``{item}``.
        max_new_tokens: Maximum number of generated tokens per reason.
        timeout: Time limit in seconds for all reasons.

    Raises:
        InputError: If the numbers of titles and histories differ.

    See: chapter 3 (the reasons are plausible texts, not causes; :func:`~recsys_cl.book.grounding.grounding` checks the
    titles that they name).
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
