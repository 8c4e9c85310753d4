"""Other libraries' losses, each in the configuration and by the conversion under which it is one of ours."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning import distances, losses, reducers
from sentence_transformers.sentence_transformer import losses as st_losses
from torch import Tensor, nn
from torch.testing import assert_close

from recsys_cl.losses import (
    bpr_loss,
    info_nce_loss,
    logistic_loss,
    nt_xent_loss,
    pairwise_contrastive_loss,
    soft_triplet_loss,
    supervised_contrastive_loss,
    symmetric_info_nce_loss,
    triplet_loss,
)
from recsys_cl.losses.checks import unit

NO_LABELS = torch.empty(0)
SEEDS = pytest.mark.parametrize("seed", range(3))
TEMPERATURES = pytest.mark.parametrize("temperature", [0.1, 0.5])


def agree(ours: Callable[..., Tensor], peer: Callable[..., Tensor], *vectors: Tensor) -> None:
    """Values and gradients to 1e-6, in double precision."""
    leaves = [side.clone().requires_grad_() for side in vectors]
    values = ours(*leaves), peer(*leaves)
    gradients = [torch.autograd.grad(value.sum(), leaves) for value in values]
    assert_close(values[0], values[1], rtol=1e-6, atol=1e-9)
    assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-9)


@pytest.fixture
def triplets(drawn, seed) -> list[Tensor]:
    return drawn(seed, (6, 4), (6, 4), (6, 4))


@SEEDS
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_torch_triplets(triplets, reduction):
    def torch_triplet(*sides: Tensor) -> Tensor:
        return F.triplet_margin_loss(*sides, margin=1.5, eps=0.0, reduction=reduction)

    def torch_cosine(*sides: Tensor) -> Tensor:
        def distance(x: Tensor, y: Tensor) -> Tensor:
            return 1 - F.cosine_similarity(x, y)

        return F.triplet_margin_with_distance_loss(*sides, distance_function=distance, margin=0.8, reduction=reduction)

    agree(lambda *sides: triplet_loss(*sides, margin=1.5, reduction=reduction), torch_triplet, *triplets)
    agree(
        lambda *sides: triplet_loss(*sides, margin=0.8, distance="cosine", reduction=reduction), torch_cosine, *triplets
    )


@SEEDS
def test_torch_cross_entropy_and_log_sigmoid(triplets):
    def cross_entropy(query: Tensor, item: Tensor) -> Tensor:
        return F.cross_entropy(query @ item.T / 0.3, torch.arange(len(query)))

    def sgns(a: Tensor, p: Tensor, n: Tensor) -> Tensor:
        return -F.logsigmoid((a * p).sum(1) / 0.3) - F.logsigmoid(-(a * n).sum(1) / 0.3)

    def bpr(a: Tensor, p: Tensor, n: Tensor) -> Tensor:
        return -F.logsigmoid(((a * p).sum(1) - (a * n).sum(1)) / 0.3)

    agree(lambda u, v: info_nce_loss(u, v, temperature=0.3), cross_entropy, *triplets[:2])
    agree(lambda *sides: logistic_loss(*sides, temperature=0.3, reduction="none"), sgns, *triplets)
    agree(lambda *sides: bpr_loss(*sides, temperature=0.3, reduction="none"), bpr, *triplets)


@SEEDS
@TEMPERATURES
def test_metric_learning_nt_xent(triplets, temperature):
    """Labels pair the two views; its mean is over the 2B positive pairs, which are our 2B rows."""
    peer = losses.SelfSupervisedLoss(losses.NTXentLoss(temperature=temperature))
    agree(lambda x, y: nt_xent_loss(x, y, temperature=temperature), peer, *triplets[:2])


@SEEDS
@TEMPERATURES
def test_metric_learning_supervised(drawn, seed, temperature):
    label = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0])
    peer = losses.SupConLoss(temperature=temperature)
    agree(
        lambda x: supervised_contrastive_loss(x, label, temperature=temperature),
        lambda x: peer(x, label),
        *drawn(seed, (8, 4)),
    )


def in_metric_learning(loss: nn.Module) -> Callable[..., Tensor]:
    """The loss of given triplets, one after the other in one matrix of embeddings."""

    def of_triplets(anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        rows = torch.arange(len(anchor))
        indices = (rows, rows + len(anchor), rows + 2 * len(anchor))
        return loss(torch.cat([anchor, positive, negative]), indices_tuple=indices)

    return of_triplets


@SEEDS
@pytest.mark.parametrize("kind", ["euclidean", "squared", "cosine"])
def test_metric_learning_triplets(triplets, kind):
    """A plain mean (its default leaves satisfied triplets out) and vectors as they come (its default normalises)."""
    distance = {
        "euclidean": distances.LpDistance(normalize_embeddings=False),
        "squared": distances.LpDistance(normalize_embeddings=False, power=2),
        "cosine": distances.CosineSimilarity(),
    }[kind]
    options = {"distance": distance, "reducer": reducers.MeanReducer()}
    hinge = in_metric_learning(losses.TripletMarginLoss(margin=0.5, **options))
    soft = in_metric_learning(losses.TripletMarginLoss(margin=0.0, smooth_loss=True, **options))
    agree(lambda *sides: triplet_loss(*sides, margin=0.5, distance=kind), hinge, *triplets)
    agree(lambda *sides: soft_triplet_loss(*sides, distance=kind), soft, *triplets)


@SEEDS
def test_metric_learning_pairs(triplets):
    """Its terms are d and max(0, m − d), to a sum of pairs; ours are halves of their squares."""
    options = {"distance": distances.LpDistance(normalize_embeddings=False), "reducer": reducers.DoNothingReducer()}
    terms = losses.ContrastiveLoss(pos_margin=0, neg_margin=4.0, **options)

    def peer(anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        rows = torch.arange(len(anchor))
        indices = (rows, rows + len(anchor), rows, rows + 2 * len(anchor))
        by_pair = terms(torch.cat([anchor, positive, negative]), indices_tuple=indices)
        return (by_pair["pos_loss"]["losses"].square() + by_pair["neg_loss"]["losses"].square()) / 2

    agree(lambda *sides: pairwise_contrastive_loss(*sides, margin=4.0, reduction="none"), peer, *triplets)


def in_sentence_transformers(loss: type, labels: Tensor = NO_LABELS, **options: object) -> Callable[..., Tensor]:
    """The loss of embeddings, passed by a model that has nothing to do."""
    module = loss(nn.Identity(), **options)
    return lambda *sides: module.compute_loss_from_embeddings(list(sides), labels)


@SEEDS
@TEMPERATURES
def test_sentence_transformers_multiple_negatives(triplets, temperature):
    """Cosine similarities times a scale, 1 / temperature; negatives beyond the pairs are everybody's."""
    peer = in_sentence_transformers(st_losses.MultipleNegativesRankingLoss, scale=1 / temperature)

    def ours(query: Tensor, *items: Tensor) -> Tensor:
        return info_nce_loss(unit(query), unit(torch.cat(items)), temperature=temperature)

    agree(ours, peer, *triplets[:2])
    agree(ours, peer, *triplets)


@SEEDS
@TEMPERATURES
def test_sentence_transformers_multiple_negatives_in_both_directions(triplets, temperature):
    peer = in_sentence_transformers(
        st_losses.MultipleNegativesRankingLoss,
        scale=1 / temperature,
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    )
    agree(lambda u, v: symmetric_info_nce_loss(unit(u), unit(v), temperature=temperature), peer, *triplets[:2])


@SEEDS
def test_sentence_transformers_triplets(triplets):
    metrics = st_losses.TripletDistanceMetric
    euclidean = in_sentence_transformers(st_losses.TripletLoss, distance_metric=metrics.EUCLIDEAN, triplet_margin=1.5)
    cosine = in_sentence_transformers(st_losses.TripletLoss, distance_metric=metrics.COSINE, triplet_margin=0.8)
    agree(lambda *sides: triplet_loss(*sides, margin=1.5), euclidean, *triplets)
    agree(lambda *sides: triplet_loss(*sides, margin=0.8, distance="cosine"), cosine, *triplets)


@SEEDS
def test_sentence_transformers_pairs(triplets):
    """Its mean is over pairs, of which an anchor has two; ours is over anchors, in units of squared distance."""
    anchor, positive, negative = (unit(side) for side in triplets)
    module = st_losses.ContrastiveLoss(
        nn.Identity(), distance_metric=lambda x, y: (x - y).norm(dim=1), margin=1.2, size_average=True
    )

    def peer(a: Tensor, p: Tensor, n: Tensor) -> Tensor:
        label = torch.cat([torch.ones(len(a)), torch.zeros(len(a))])
        return 2 * module.compute_loss_from_embeddings([torch.cat([a, a]), torch.cat([p, n])], label)

    agree(lambda *sides: pairwise_contrastive_loss(*sides, margin=1.2), peer, anchor, positive, negative)


@SEEDS
def test_sentence_transformers_soft_margin(drawn, seed):
    """It mines the hardest, in a batch with labels: with two pairs, the nearer of the two vectors of the other."""
    (both,) = drawn(seed, (4, 4))
    label, partner, strangers = [0, 0, 1, 1], [1, 0, 3, 2], [[2, 3], [2, 3], [0, 1], [0, 1]]
    hardest = [
        min(candidates, key=lambda j, i=i: float((both[i] - both[j]).norm())) for i, candidates in enumerate(strangers)
    ]
    peer = in_sentence_transformers(st_losses.BatchHardSoftMarginTripletLoss, labels=torch.tensor(label))
    agree(lambda x: soft_triplet_loss(x, x[partner], x[hardest]), peer, both)
