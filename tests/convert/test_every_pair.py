"""Every form to every form: the rows that come out are those that went in."""

import pytest
from convert_helpers import convert, facts, load

from calotype.convert import FORMS, verify_conversion

FORM_NAMES = list(FORMS)


def extras(manifest):
    return [dict(row.extra) for row in manifest]


@pytest.mark.parametrize("to", FORM_NAMES)
@pytest.mark.parametrize("came_as", FORM_NAMES)
def test_every_pair(converted, source, tmp_path, came_as, to):
    plan = convert(converted[came_as], tmp_path / "out", to, came_as=came_as)
    result = load(tmp_path / "out", to)
    assert facts(result) == facts(load(source))
    if "csv" not in (came_as, to):
        assert extras(result) == extras(load(source))
    assert verify_conversion(plan).differences == ()
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
