"""Several positives a query: a loop, InfoNCE and supervised contrastive learning as special cases, gradients."""

import pytest
import torch
from torch import Tensor

from recsys_cl.errors import InputError
from recsys_cl.losses import info_nce_loss, multi_positive_loss, supervised_contrastive_loss


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    query, item = torch.randn(5, 4, generator=generator), torch.randn(7, 4, generator=generator)
    role = torch.rand(5, 7, generator=generator)
    positive = role > 0.6
    positive[:, 0] = True
    return query, item, positive, (role < 0.2) & ~positive


def test_it_is_the_average_over_positives_of_one_softmax(batch: tuple[Tensor, ...]) -> None:
    query, item, positive, mask = batch
    expected = []
    for u, ours, theirs in zip(query, positive, mask, strict=True):
        logits = [float(u @ v) / 0.3 for v in item]
        total = sum(torch.tensor(logit).exp() for logit, hidden in zip(logits, theirs, strict=True) if not hidden)
        pulled = [logit for logit, wanted in zip(logits, ours, strict=True) if wanted]
        expected.append(float(total.log()) - sum(pulled) / len(pulled))
    loss = multi_positive_loss(query, item, positive, temperature=0.3, mask=mask, reduction="none")
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_one_positive_a_query_is_info_nce(batch: tuple[Tensor, ...]) -> None:
    query, item, _, _ = batch
    diagonal = torch.eye(5, 7, dtype=torch.bool)
    loss = multi_positive_loss(query, item, diagonal, temperature=0.2)
    torch.testing.assert_close(loss, info_nce_loss(query, item, temperature=0.2))


def test_labels_instead_of_users_are_supervised_contrastive_learning() -> None:
    z = torch.nn.functional.normalize(torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    label = torch.tensor([0, 0, 0, 1, 1, 1])
    itself = torch.eye(6, dtype=torch.bool)
    same = (label[:, None] == label) & ~itself
    loss = multi_positive_loss(z, z, same, temperature=0.5, mask=itself)
    torch.testing.assert_close(loss, supervised_contrastive_loss(z, label, temperature=0.5))


def test_gradient_is_probability_less_share(batch: tuple[Tensor, ...]) -> None:
    query, item, positive, mask = batch
    query.requires_grad_()
    multi_positive_loss(query, item, positive, temperature=0.5, mask=mask, reduction="sum").backward()
    probability = (query @ item.T / 0.5).masked_fill(mask, -torch.inf).softmax(1)
    share = positive / positive.sum(1, keepdim=True)
    torch.testing.assert_close(query.grad, ((probability - share) @ item / 0.5).detach())


def test_a_masked_candidate_has_no_gradient(batch: tuple[Tensor, ...]) -> None:
    query, item, positive, _ = batch
    item.requires_grad_()
    positive[:, 6] = False
    mask = torch.zeros(5, 7, dtype=torch.bool)
    mask[:, 6] = True
    multi_positive_loss(query, item, positive, mask=mask).backward()
    assert item.grad is not None
    assert item.grad[6].abs().sum() == 0
    assert item.grad[:6].abs().sum(1).min() > 0


def test_rows_of_one_mean_nothing_but_their_own_positives(batch: tuple[Tensor, ...]) -> None:
    query, item, positive, mask = batch
    each = multi_positive_loss(query, item, positive, mask=mask, reduction="none")
    alone = torch.cat(
        [multi_positive_loss(query[[b]], item, positive[[b]], mask=mask[[b]], reduction="none") for b in range(5)]
    )
    torch.testing.assert_close(each, alone)
    torch.testing.assert_close(multi_positive_loss(query, item, positive, mask=mask), each.mean())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, i, p, m: (q, i, p & False, m), "rows .0, 1, 2, 3, 4. have no positive"),
        (lambda q, i, p, m: (q, i, p, m | True), "a positive is masked"),
        (lambda q, i, p, m: (q, i, p[:, :3], m), "do not fit"),
        (lambda q, i, p, m: (q * torch.nan, i, p, m), "query has the value nan"),
    ],
)
def test_bad_input_is_named(batch: tuple[Tensor, ...], change, message: str) -> None:
    query, item, positive, mask = change(*batch)
    with pytest.raises(InputError, match=message):
        multi_positive_loss(query, item, positive, mask=mask)


def test_temperature_must_be_positive(batch: tuple[Tensor, ...]) -> None:
    query, item, positive, _ = batch
    with pytest.raises(InputError, match="temperature"):
        multi_positive_loss(query, item, positive, temperature=0.0)
