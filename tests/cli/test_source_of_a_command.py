"""The first argument of a command: what it names, from where, and what is said of one that names nothing."""

import pytest
from command import calotype


def test_a_path_beside_the_config_is_found_and_named(photos, tmp_path, monkeypatch):
    """A config's paths start from the current folder: from another one, the error says so, and asks no hub."""
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "pictures").symlink_to(photos)
    (tmp_path / "far" / "run.yaml").write_text("dataset: {path: pictures}\n")
    (tmp_path / "far" / "deeper").mkdir()
    (tmp_path / "far" / "deeper" / "run.yaml").write_text("dataset: {path: ../pictures}\n")
    monkeypatch.chdir(tmp_path)
    _, err = calotype("info", "far/run.yaml", code=2)
    assert "pictures: there is no such file or folder in " in err and err.count("\n") == 1
    assert err.endswith("far/pictures is there: run in far, or write the whole path\n")
    _, err = calotype("info", "far/deeper/run.yaml", code=2)
    assert err.endswith("far/deeper/../pictures is there: run in far/deeper, or write the whole path\n")


def test_images_that_are_all_unreadable_are_a_problem_and_no_wrong_use(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    _, err = calotype("info", tmp_path, code=1)
    assert "none of the 1 images can be used: 1 unreadable" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("info", ""),
        ("check", ""),
        ("preview", ""),
        ("config", "show", ""),
        ("init", "", "--model", "sdxl", "--trigger", "x"),
        ("convert", "", "out.csv", "--to", "csv"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_an_empty_source_is_not_the_current_folder(arguments, photos, monkeypatch):
    """As in `calotype info "$DIR"` where the variable is unset."""
    monkeypatch.chdir(photos)
    _, err = calotype(*arguments, code=2)
    assert "found ''" in err or "'': there is no such folder" in err
