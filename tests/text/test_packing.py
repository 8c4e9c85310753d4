"""Packed weights compute the same, for as long as they are asked for."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import AutoModel

from recsys_cl.text import backbone
from recsys_cl.text.adapters import Adapter, adapt
from recsys_cl.text.backbone import packed_weights

IDS = torch.tensor([[2, 5, 6, 3], [2, 9, 3, 0]])
MASK = (IDS > 0).long()


@pytest.mark.skipif(not backbone._has_onednn(), reason="this PyTorch has no oneDNN")
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_packed_weights_compute_the_same(kind, folders):
    module = adapt(AutoModel.from_pretrained(folders[kind]), Adapter(rank=2)).eval()
    with torch.inference_mode():
        plain = module(input_ids=IDS, attention_mask=MASK).last_hidden_state
        with packed_weights(module):
            assert sum("forward" in part.__dict__ for part in module.modules()) > 12
            packed = module(input_ids=IDS, attention_mask=MASK).last_hidden_state
    assert_close(packed, plain, atol=1e-5, rtol=1e-5)


def test_layers_are_as_before_afterwards_also_when_something_fails():
    layer, x = nn.Linear(3, 2, bias=False), torch.ones(1, 3)
    with pytest.raises(RuntimeError, match="stop"), packed_weights(layer):
        raise RuntimeError("stop")
    with torch.no_grad():
        layer.weight.fill_(2.0)
    layer(x).sum().backward()
    assert layer(x).tolist() == [[6.0, 6.0]]
    assert layer.weight.grad is not None


def test_what_onednn_does_not_fit_runs_as_it_is(monkeypatch):
    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    layers = [Doubled(3, 2), nn.Linear(3, 2).to(torch.bfloat16), nn.Linear(3, 2)]
    layers[2].forward = lambda x: x
    for layer in layers:
        with packed_weights(layer):
            assert not isinstance(layer.__dict__.get("forward"), backbone.partial)
    assert "forward" in layers[2].__dict__
    for name, value in (("LARGEST", 5), ("_has_onednn", lambda: False)):
        layer = nn.Linear(3, 2)
        with monkeypatch.context() as patch:
            patch.setattr(backbone, name, value)
            with packed_weights(layer):
                assert "forward" not in layer.__dict__
