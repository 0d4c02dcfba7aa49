"""What the preview's page says of captions and tokens: every part and every piece, exactly as it is trained."""

import dataclasses

from page_tree import plain, read_page
from preview_examples import CAPTIONS, all_samples, example, sample, show

from calotype.previews.page import render_page
from calotype.previews.wording import NO_CAPTION, final_caption
from calotype.transforms import CaptionTransform
from calotype.types import SampleKey


def test_the_final_caption_reads_exactly_as_it_is_trained_and_every_part_is_marked():
    program = CaptionTransform(shuffle_parts=0.5, drop_parts=0.3, keep_parts=1, template="a, {trigger}: {caption}, b",
                             trigger="one")  # fmt: skip
    seen = set()
    for index in range(200):
        caption = ", ".join(["one", "two  words", "<b>", "one", "drei"][: index % 6])
        draw = program.draw([caption], SampleKey(index), 0)
        paragraph = read_page(final_caption(draw)).one("p")
        assert paragraph.text(without=("del",)) == draw.text
        for name, state in (("del", "dropped"), ("mark", "moved"), ("ins", "added")):
            wanted = [part.text for part in draw.parts if part.state == state]
            assert [node.text() for node in paragraph.all(name)] == wanted
            seen |= {state} if wanted else set()
    assert seen == {"dropped", "moved", "added"}


def test_changes_are_counted_in_words():
    view = sample("coffee.png", draws=0, words=CaptionTransform(drop_parts=0.6, keep_parts=1, trigger="xyz"))
    states = [part.state for part in view.caption.parts]
    labels = [p.text() for p in show(view).all("p", class_="label")]
    assert labels == ["In the data", f"As trained · {states.count('dropped')} dropped, 1 added"]


def test_an_unchanged_caption_is_shown_once():
    article = show(sample("coffee.png", draws=0, words=CaptionTransform())).one("article")
    assert [p.text() for p in article.all("p", class_="caption")] == [CAPTIONS["coffee.png"]]


def test_a_dropped_caption_says_so():
    article = show(sample("coffee.png", draws=1, words=CaptionTransform(drop=1.0))).one("article")
    paragraph = article.one("p", class_="final")
    assert paragraph.one("em").text() == NO_CAPTION
    assert [node.text() for node in paragraph.all("del")] == CAPTIONS["coffee.png"].split(", ")
    assert article.one("p", class_="raw").text() == CAPTIONS["coffee.png"]


def test_an_empty_caption_is_not_a_dropped_one():
    page = show(sample("coffee.png", draws=0, captions=("",), words=CaptionTransform()))
    assert page.one("p", class_="final").text() == "(empty)"


def test_which_of_several_captions_it_was():
    view = sample("coffee.png", draws=0, captions=("a", "b", "c"), words=CaptionTransform(choose=[0, 0, 1]))
    assert show(view).one("p", class_="label").text() == "As in the data · caption 3 of 3"


def test_a_custom_change_is_an_addition():
    view = sample("coffee.png", draws=0, words=CaptionTransform(custom=str.upper))
    assert show(view).one("p", class_="final").one("ins").text() == CAPTIONS["coffee.png"].upper()


def test_captions_of_other_draws():
    long = ", ".join(f"part {n}" for n in range(60))
    view = sample("coffee.png", draws=3, captions=(long,), words=CaptionTransform())
    texts = (long, long.upper(), "")
    draws = tuple(dataclasses.replace(draw, text=text) for draw, text in zip(view.draws, texts, strict=True))
    same, other, none = show(dataclasses.replace(view, draws=draws)).all("figure", class_="draw")
    assert same.one("figcaption").one("em").text() == "the same caption"
    assert other.one("details").one("p").text() == long.upper()
    assert other.one("summary").text().endswith("…")
    assert none.one("figcaption").one("em").text() == NO_CAPTION


def test_every_piece_is_there_with_its_id_and_kind():
    batches = example()
    page = read_page(render_page(batches, title="t"))
    for article, view in zip(page.all("article"), all_samples(batches), strict=True):
        assert len(article.all(class_="tokens")) == bool(view.tokens)
        for details, tokens in zip(article.one(class_="words").all("details"), view.tokens, strict=True):
            items = details.all("li")
            padding = items.pop() if tokens.padding else None
            assert padding is None or padding.text() == f"+ {tokens.padding} padding"
            for item, piece in zip(items, tokens.pieces, strict=True):
                name = "s" if piece.kind == "cut" else "b"
                assert plain(item.one(name)) == piece.text
                assert item.one("small").text() == str(piece.id)
                assert item.classes == ([] if piece.kind == "text" else [piece.kind])
            cut = sum(piece.kind == "cut" for piece in tokens.pieces)
            assert details.one(class_="used").text() == f"{len(tokens.pieces) - cut} of {tokens.limit}"
            assert ("open" in details.attributes) == (cut > 0)
            assert (f"⚠ {cut} tokens cut" in details.one("summary").text()) == (cut > 0)
