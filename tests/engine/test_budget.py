"""Parsing, formatting and conversion of budgets."""

import pytest
from toys import Bright

from hrviewer.engine import Budget, model_info
from hrviewer.errors import HrviewerError


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("2TFLOP", 2e12, "flops"),
        ("1.5 GFLOPs", 1.5e9, "flops"),
        ("3e9flop", 3e9, "flops"),
        ("30s", 30, "seconds"),
        ("500patches", 500, "patches"),
        ("1patch", 1, "patches"),
        ("12.5%", 0.125, "share"),
    ],
)
def test_parses(text, amount, unit):
    budget = Budget.parse(text)
    assert (budget.amount, budget.unit) == (amount, unit)
    assert Budget.parse(str(budget)) == budget


def test_labels_are_rounded():
    words = [Budget.parse(text).label for text in ("1799118864380FLOP", "7.01025s", "12.5%")]
    assert words == ["1.8 TFLOP", "7.01s", "12.5%"]


@pytest.mark.parametrize(
    "text", ["", "30", "-3s", "0s", "3Ks", "2 potatoes", "1.2.3s", "TFLOP", "3K%"]
)
def test_refuses(text):
    with pytest.raises(HrviewerError, match="2TFLOP, 30s, 500patches or 10%"):
        Budget.parse(text)


def test_converts_to_flops():
    main = model_info(Bright())
    assert Budget(5, "flops").flops(main, lambda: 1.0, 9.0) == 5
    assert Budget(3, "seconds").flops(main, lambda: 7.0, 9.0) == 21
    assert Budget(2, "patches").flops(main, lambda: 0.0, 9.0) == 2 * 64 * 64 * 100
    assert Budget(0.25, "share").flops(main, lambda: 0.0, 8.0) == 2
