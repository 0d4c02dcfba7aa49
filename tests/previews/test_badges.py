"""The verdict of a preview: which samples are enlarged, cropped, cut, without a caption, or there twice."""

import pytest
from page_tree import read_page
from preview_examples import all_samples, batch, example, sample

from calotype.previews.badges import BADGES, find_badges, verdict
from calotype.previews.page import render_page
from calotype.transforms import CaptionTransform, ImageTransform

WHOLE = ImageTransform()
PLAIN = CaptionTransform()


def keys(view):
    return [badge.key for badge in find_badges([batch([view])])[0][0]]


def made(name="hubble_deep_field.jpg", **options):
    return sample(name, **{"draws": 0, "size": (320, 480), "program": WHOLE, "words": PLAIN} | options)


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (lambda: made(), []),
        (lambda: made("chelsea.png", size=(512, 768)), ["enlarged"]),
        (lambda: made(program=ImageTransform(center_crop=True, resize=[640, 320]), size=(640, 320)), ["cropped"]),
        (lambda: made(captions=("word " * 100,)), ["caption-cut"]),
        (lambda: made(captions=("",)), ["no-caption"]),
        (lambda: made(captions=(" ",), words=CaptionTransform(trigger="sks")), ["no-caption"]),
        (lambda: made(words=CaptionTransform(drop=1.0)), []),  # dropped for guidance, not missing
        (lambda: made(stands_in_for="broken.jpg"), ["stand-in"]),
        (lambda: made(repeatable=False), ["not-repeatable"]),
    ],
)
def test_each_badge(view, expected):
    assert keys(view()) == expected


def test_duplicates_are_other_rows_with_the_same_pixels():
    one, same, other = made(index=1), made(index=2, id="copy.jpg"), made("coffee.png", index=3)
    found = find_badges([batch([one, other]), batch([same], step=1)])
    assert [["duplicate" in [b.key for b in badges] for badges in row] for row in found] == [[True, False], [True]]
    repeated = find_badges([batch([one, one])])  # one row twice, as kohya's repeats are
    assert repeated == [[(), ()]]


def test_the_verdict_counts_and_says_what_is_fine():
    there, absent = verdict(find_badges(example()))
    assert [badge.counted(number) for badge, number in there] == [
        "5 enlarged",
        "3 cropped by more than a third",
        "1 caption cut",
        "1 in place of an unreadable image",
    ]
    assert absent == ["none without a caption", "no duplicates"]


def test_the_page_opens_with_the_verdict_and_a_thumbnail_of_every_sample():
    batches = example()
    page = read_page(render_page(batches, title="t"))
    buttons = page.one(class_="verdict").all("button")
    assert [button["data-badge"] for button in buttons] == ["enlarged", "cropped", "caption-cut", "stand-in"]
    links = page.one(class_="overview").all("a", class_="thumb")
    assert [link["href"][1:] for link in links] == [article["id"] for article in page.all("article")]
    found = [badges for row in find_badges(batches) for badges in row]
    for link, article, badges in zip(links, page.all("article"), found, strict=True):
        assert article["data-badges"].split() == [badge.key for badge in badges]
        assert [span.text() for span in link.all(class_="badge")] == [badge.label for badge in badges]
        assert all(badge.label in link["aria-label"] for badge in badges)
        assert max(int(link.one("img")["width"]), int(link.one("img")["height"])) == 112
    order = [node["class"] for node in page.one("body").children if "class" in node.attributes]
    assert order.index("page") < order.index("overview") < order.index("bar")
    assert len(all_samples(batches)) == len(links)


def test_badges_have_names_of_their_own():
    assert len({badge.key for badge in BADGES}) == len({badge.label for badge in BADGES}) == len(BADGES)
