"""docs/check.md is true: its table of kinds is the table, and its JSON keys are the report's."""

import re
from dataclasses import fields
from pathlib import Path

from report_examples import example

from calotype.check import report
from calotype.check.kinds import KINDS

PAGE = (Path(__file__).parents[2] / "docs" / "check.md").read_text("utf-8")


def test_every_kind_is_listed_as_it_is():
    rows = re.findall(r"^\| `(\w+)` \| (error|warning|note) \| (.*) \| (.*) \|$", PAGE, re.MULTILINE)
    assert rows == [(name, kind.level, kind.title, kind.advice) for name, kind in KINDS.items()]


def test_every_json_key_is_listed():
    table = PAGE.partition("## JSON")[2]
    said = set(re.findall(r"`(\w+)`", table))
    parts = (report.Finding, report.CaptionFacts, report.TokenFacts, report.PlanFacts, report.RemainderFacts)
    keys = {field.name for part in (*parts, report.CacheCost) for field in fields(part)} | set(example().to_json())
    assert keys - said == set()
    assert {word for word in said if word.islower()} - keys == set()
