"""What distilling writes for programs is JSON without NaN, and comes back as it was."""

import json
import math

import pytest

from calotype.core.output_files import write_json
from calotype.distill.scores import HeldOut, Scores


def refuse(word):
    raise AssertionError(f"{word} is no JSON")


@pytest.mark.parametrize("loss", [math.nan, math.inf, 1.5])
def test_a_loss_that_is_not_finite_is_null_in_the_file(tmp_path, loss):
    scores = Scores(bleu=1.0, chrf=2.0, loss=loss, answers=3, without=0, signatures=("a", "b"))
    HeldOut(scores=scores, answers=({"id": "ü.jpg"},)).save(tmp_path / "after.json")
    text = (tmp_path / "after.json").read_text("utf-8")
    assert json.loads(text, parse_constant=refuse)["scores"]["loss"] == (loss if loss == 1.5 else None)
    found = HeldOut.load(tmp_path / "after.json")
    assert found is not None and found.answers == ({"id": "ü.jpg"},)
    assert found.scores.loss == 1.5 if loss == 1.5 else math.isnan(found.scores.loss)


def test_a_report_with_nan_anywhere_is_json(tmp_path):
    write_json(
        tmp_path / "new" / "report.json", {"losses": [(1, math.nan), (2, -math.inf)], "seconds": 1.0, "to": None}
    )
    text = (tmp_path / "new" / "report.json").read_text("utf-8")
    assert json.loads(text, parse_constant=refuse) == {"losses": [[1, None], [2, None]], "seconds": 1.0, "to": None}
