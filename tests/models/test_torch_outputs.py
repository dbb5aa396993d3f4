"""Programs of torch that return several outputs, in a tuple, a list or a dictionary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hrviewer.errors import HrviewerError
from hrviewer.models import Network, open_bundle
from hrviewer.models.drafting import CardAnswers, draft_card, measure_file

SIDE = 64


class Heads(nn.Module):
    """A map of two classes, an auxiliary one, and features."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.body = kind, nn.Conv2d(3, 4, 3, padding=1)
        self.main, self.other = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> Any:
        features = self.body(x)
        out, aux = self.main(features), self.other(features)
        if self.kind == "dictionary":
            return {"out": out, "aux": aux}
        if self.kind == "nested":
            return out, [aux, features]
        return (out, features) if self.kind == "tuple" else [out, aux]


def save(folder: Path, kind: str, exported: bool = False) -> tuple[nn.Module, Path]:
    module, x = Heads(kind).eval(), torch.zeros(1, 3, SIDE, SIDE)
    path = folder / (f"{kind}.pt2" if exported else f"{kind}.pt")
    if exported:
        torch.export.save(torch.export.export(module, (x,)), path)
    else:
        torch.jit.save(torch.jit.trace(module, x, strict=False), path)
    return module, path


def init(path: Path) -> Network:
    answers = CardAnswers(scale=1 / 255, classes=["a", "b"], tile=SIDE)
    draft = draft_card(path, measure_file(path, SIDE), answers)
    path.with_suffix(".json").write_text(json.dumps(draft.fields))
    return open_bundle(path, trust=True).load("main", "cpu")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Encountering a")
@pytest.mark.parametrize(
    ("kind", "exported", "name"),
    [
        ("tuple", False, "0"),
        ("list", False, "0"),
        ("dictionary", False, "out"),
        ("tuple", True, "0"),
        ("dictionary", True, "out"),
    ],
)
def test_the_first_output_is_used(tmp_path: Path, kind: str, exported: bool, name: str) -> None:
    module, path = save(tmp_path, kind, exported)
    net = init(path)
    assert net.card.output.names == (name,)
    x = torch.rand(1, 3, SIDE, SIDE)
    with torch.inference_mode():
        outputs = module(x)
        wanted = outputs[name if kind == "dictionary" else 0].softmax(1)
    np.testing.assert_allclose(net(x.numpy()), wanted, atol=1e-5)
    # Another one is chosen in the card; a name that is none is an error.
    fields = json.loads(path.with_suffix(".json").read_text())
    for chosen in ("aux" if kind == "dictionary" else "1", "logits"):
        fields["output"]["names"] = [chosen]
        path.with_suffix(".json").write_text(json.dumps(fields))
        if chosen == "logits":
            with pytest.raises(HrviewerError, match="has no output 'logits', but"):
                open_bundle(path, trust=True).load("main", "cpu")
        elif kind != "tuple":
            other = open_bundle(path, trust=True).load("main", "cpu")
            assert np.abs(other(x.numpy()) - wanted.numpy()).max() > 1e-3


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Encountering a")
def test_nested_outputs_are_named(tmp_path: Path) -> None:
    _, path = save(tmp_path, "nested")
    with pytest.raises(HrviewerError, match="output 1 of the network is no tensor, but of the ty"):
        init(path)
