"""Names that are there in another Unicode form or another case."""

from __future__ import annotations

from calotype.manifest.names_on_disk import NamesOnDisk

_NFC, _NFD = "Gr\u00f6\u00dfe.jpg", "Gro\u0308\u00dfe.jpg"


def test_the_exact_name_wins():
    assert NamesOnDisk([_NFC, _NFD, "a.jpg", "A.jpg"]).find(_NFD) == _NFD
    assert NamesOnDisk(["a.jpg", "A.jpg"]).find("A.jpg") == "A.jpg"


def test_another_unicode_form_or_case_is_found_where_it_is_the_only_one():
    assert NamesOnDisk([_NFD, "plain.jpg"]).find(_NFC) == _NFD
    assert NamesOnDisk(["train/IMG_1.JPG"]).find("Train/img_1.jpg") == "train/IMG_1.JPG"
    assert NamesOnDisk([_NFD.upper()]).find(_NFC) is None, "ß and SS are two spellings, not two cases"
    assert NamesOnDisk(["\u00c9.jpg"]).find("e\u0301.jpg") == "\u00c9.jpg", "both at once"


def test_the_unicode_form_has_priority_over_the_case():
    assert NamesOnDisk(["CAFE\u0301.jpg", "caf\u00e9.jpg"]).find("cafe\u0301.jpg") == "caf\u00e9.jpg"


def test_what_is_not_unique_is_named_and_not_chosen():
    names = NamesOnDisk(["A.jpg", "a.JPG", "b.jpg"])
    assert names.find("a.jpg") is None
    assert names.alike("a.jpg") == ["A.jpg", "a.JPG"]
    assert names.find("c.jpg") is None
    assert names.alike("c.jpg") == []
