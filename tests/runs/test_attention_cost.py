"""The closed form of attention cost is the cost of the strategy."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from toys import Bright, Joint, ToyBundle, Workbench, card
from typer.testing import CliRunner

from hrviewer.cli import app
from hrviewer.models.loaders.torch import count_flops
from hrviewer.models.size_trial import TOKEN_COUNTS
from hrviewer.models.transformer import TokenTransformer
from hrviewer.runs.attention_cost import SIDES, AttentionCost
from hrviewer.runs.scaling import Fit, Scaling, fit
from hrviewer.runs.size_trials import SquareCost
from hrviewer.strategies.transformer import Transformer, TransformerParams


def test_the_parabola_through_counts_is_that_of_the_model():
    hollow = TokenTransformer(depth=3).to("meta")

    def count(n):
        return count_flops(hollow, "run_tokens", (n, 3, 16, 16), (n, 4))

    found = AttentionCost.from_counts({n: count(n) for n in TOKEN_COUNTS}, 16)
    assert found.joint_input(777) == pytest.approx(count(777), rel=1e-12)
    assert found.per_pair == pytest.approx(3 * 4 * 72)  # two products of every pair, each layer
    assert found.constant == pytest.approx(0, abs=1)
    assert AttentionCost.from_counts({n: -(-n // 49) * 49.0 for n in TOKEN_COUNTS}, 16) is None


def test_growth_of_the_attention_patterns():
    found = AttentionCost(16, 0.0, 10.0, 1.0)
    one = found.joint_input(1024)
    assert found.quadratic(512) == found.windowed(512) == found.nested(512) == one
    assert found.quadratic(2048) == found.joint_input(16 * 1024)
    assert found.windowed(2048) == 16 * one
    # Four regions, each with three neighbours.
    assert found.nested(1024) == 4 * found.joint_input(1027)
    # Three by three: the middle has eight, sides five, corners three; and the second ring of
    # corners and sides lies outside, since its squares' middles do.
    assert found.nested(1536) == sum(
        k * found.joint_input(1024 + n) for k, n in ((4, 3), (4, 5), (1, 8))
    )
    far, near = SIDES[-1], SIDES[-2]
    assert found.quadratic(far) / found.quadratic(near) == pytest.approx(16, rel=1e-3)
    assert found.windowed(far) / found.windowed(near) == 4
    assert 4 < found.nested(far) / found.nested(near) < 4.1


@pytest.mark.parametrize(("side", "rings"), [(1024, 1), (2048, 2)])
def test_nested_is_the_cost_of_the_strategy(side, rings):
    bundle = ToyBundle(main=Bright(), transformer=Joint("transformer", tile=16))
    params = TransformerParams(detail="uniform", finest=64, context=rings, check=0)
    with Workbench(np.zeros((side, side, 3), np.uint8), bundle) as bench:
        _, record, _ = bench.run(lambda context: Transformer().plan(context, params))
    # The toy's cost is 10 n + n²; a grid of 64 px has 64 tokens in a region.
    found = AttentionCost(64, 0.0, 10.0, 1.0)
    assert record.cost_map.total.flops == pytest.approx(found.nested(side))


def test_a_fit_of_a_parabola_is_that_parabola():
    areas = np.array([128, 256, 512, 1024]) ** 2
    found = fit(areas, 3e6 + 40.0 * areas + 2e-4 * areas**2.0, pairs=True)
    assert found.constant == pytest.approx(3e6)
    assert found.per_pixel == pytest.approx(40)
    assert found.per_pair == pytest.approx(2e-4)
    assert found.predict(2048) == pytest.approx(3e6 + 40 * 2048**2 + 2e-4 * 2048**4)
    assert fit(areas, 40.0 * areas).per_pair == 0


def test_only_the_curve_of_flops_has_lines():
    even = Fit(0.0, 1.0, 0.0)
    point = SquareCost(64, 1.0, 1.0, 1.0)
    names = ("flops", "seconds", "peak_bytes")
    found = Scaling(
        "m", "transformer", "cpu", "torch", 9, (point,), dict.fromkeys(names, even), None, None,
        AttentionCost(64, 0.0, 10.0, 1.0),
    )  # fmt: skip
    flops, seconds, memory = found.curves()
    assert flops.lines.keys() == {"quadratic", "windowed", "nested"}
    assert seconds.lines == memory.lines == {}
    assert (flops.limit, memory.limit) == (None, 9)


@pytest.mark.slow
def test_the_command_on_a_transformer(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "small.safetensors"
    params = {"dim": 24, "depth": 2, "heads": 2}
    save_file(TokenTransformer(**params).state_dict(), path)
    about = card("small", tile=16, channels="rgb", stride=4).model_dump(
        mode="json", exclude_none=True
    )
    about["input"]["fixed"] = True
    about["architecture"] = {"name": "token-transformer", "params": params}
    path.with_suffix(".json").write_text(json.dumps(about))
    arguments = ["cost", "--model", str(path), "--device", "cpu", "--sides", "64,128,256"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.output
    output = json.loads(result.stdout)
    assert [row["side"] for row in output["attention"]["flops"]] == list(SIDES)
    hollow = TokenTransformer(**params).to("meta")
    whole = count_flops(hollow, "run_tokens", (1024, 3, 16, 16), (1024, 4))
    first = output["attention"]["flops"][0]
    assert [first[way] for way in ("quadratic", "windowed", "nested")] == pytest.approx([whole] * 3)
    assert output["points"][-1]["flops"] == count_flops(
        hollow, "run_tokens", (256, 3, 16, 16), (256, 4)
    )
    assert output["fits"]["flops"]["per_pair"] > 0
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")])
    assert "nested FLOPs" in result.stdout
