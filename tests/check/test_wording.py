"""What captioners leave: found in their own words, and not where a caption only sounds like it."""

import json
from importlib.resources import files

import pytest

from calotype.check.wording import odd_characters, opener, refusal


@pytest.mark.parametrize(
    "caption",
    [
        "I'm sorry, but I can't assist with that.",
        "I’m sorry, but I can’t help with identifying people in images.",
        "I am sorry, but as an AI I cannot describe this.",
        "Sorry, I can't describe this image.",
        "I cannot provide a caption for this image.",
        "I can't help with that request.",
        "I'm unable to view images.",
        "I am not able to identify the person.",
        "Unfortunately, I cannot see the image.",
        "As an AI language model, I do not have the ability to see images.",
        "As a language model, I can't see it.",
        "I apologize, but I cannot generate that.",
        '"I\'m sorry, but I cannot fulfill this request."',
        "I don't see an image attached to your message.",
        "No image was provided.",
        "Please upload the image you would like me to describe.",
    ],
)
def test_refusals(caption):
    assert refusal(caption)


@pytest.mark.parametrize(
    "caption",
    [
        "a birthday cake with the words I'm sorry, mom in red icing",
        "I'm sorry, mom: letters of icing on a cake",
        "a robot assistant as an AI mascot, blue",
        "a man who cannot see the train",
        "sorry sign on a closed shop",
        "a cat, unable to climb down, on a roof",
        "no image of a saint, an empty frame",
        "",
    ],
)
def test_no_refusals(caption):
    assert not refusal(caption)


@pytest.mark.parametrize(
    ("caption", "phrase"),
    [
        ("The image shows a cat on a mat", "The image shows "),
        ("This image depicts a dog", "This image depicts "),
        ("The photograph captures the light", "The photograph captures "),
        ("The black and white photo features a man", "The black and white photo features "),
        ("In this image, we can see a tree", "In this image, we can see "),
        ("In the image, there is a house", "In the image, there is "),
        ("In this image you can see a lake", "In this image you can see "),
        ("We can see a red car", "We can see "),
        ("Caption: a red car", "Caption: "),
        ("**Description:** a red car", "Description:** "),
        ("Sure! Here's a caption for the image: a red car", "Sure! Here's a caption for the image: "),
        ("Here is a detailed description of the image:\na red car", "Here is a detailed description of the image:\n"),
        ("This is fine, but the image shows a car", None),
        ("The image is a digital painting of a fox", "The image is a "),
    ],
)
def test_openers(caption, phrase):
    assert opener(caption) == phrase


@pytest.mark.parametrize(
    "caption",
    [
        "a photo of a cat",
        "An image of a house by the sea",
        "an image of a saint in a church",
        "The image frame on the wall is golden",
        "The scene of a crime, yellow tape",
        "images in a gallery, the painting in the middle shows a king",
        "a caption board held up by a man",
        "photograph, 35mm, a cat",
        "",
    ],
)
def test_no_openers(caption):
    assert opener(caption) is None


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("a cat\x07 on a mat", ("control character", "U+0007", "character 6")),
        ("caf\ufffd", ("REPLACEMENT CHARACTER", "character 4")),
        ("zero\u200bwidth", ("ZERO WIDTH SPACE",)),
        ("\ufeffa cat", ("ZERO WIDTH NO-BREAK SPACE", "character 1")),
        ("half \ud83d a face", ("lone surrogate", "U+D83D")),
        ("right\u202eto left", ("RIGHT-TO-LEFT OVERRIDE",)),
        ("private \ue000 use", ("private",)),
        ("cafÃ© crÃ¨me", ("another encoding", "Ã©")),
        ("itâ€™s a cat", ("another encoding",)),
        ("cafe\u0301", ("normal form C",)),
        ("salt &amp; pepper", ("HTML entity", "&amp;")),
        ("two\\nlines", ("escape sequence",)),
        ("a cat</s>", ("a tag",)),
        ("a cat<|endoftext|>", ("a tag",)),
        ("a **bold** cat", ("Markdown",)),
        ("# A cat", ("Markdown",)),
        ("- a cat\n- a dog", ("Markdown",)),
        ("a caaaaaaaaaat", ("one character over and over",)),
        ("wow!!!!!!!!", ("one character over and over",)),
        ("a red car and a red car and a red car and a red car and", ("phrase over and over",)),
        ("tree, tree, tree, tree, tree", ("phrase over and over",)),
        ('"a cat on a mat"', ("quotation marks around the whole",)),
        ("a cat ", ("white space",)),
        ("nan", ("missing value",)),
        ("None", ("missing value",)),
        ("0 0.5 0.5 0.21 0.3", ("numbers and nothing else",)),
        ("0 0.5 0.5 0.2 0.3\n1 0.1 0.2 0.3 0.4", ("numbers and nothing else",)),
        ('["a cat", "a tabby"]', ("a list written as one text",)),
        ("['a cat', 'a tabby']", ("a list written as one text",)),
    ],
)
def test_odd_characters(caption, words):
    found = "; ".join(odd_characters(caption))
    assert all(word in found for word in words), found


@pytest.mark.parametrize(
    "caption",
    [
        "a cat, sitting on a mat, 35mm",
        "naïve café, Ångström, Ærø, São Paulo, Čeština",
        "写真、猫がいる",
        "family emoji 👨‍👩‍👧 and a flag 🏳️‍🌈",
        "می‌خواهم",
        'a sign that says "open" and one that says "closed"',
        "'70s car with a '70s driver's cap",
        "f/1.8, ISO 100, 1/250 s, 50 mm -- ar 3:2",
        "very very very big",
        "line one\nline two",
        "100000000 dollars",
        "a * b",
        "1984",
        "none of them smiles",
        "[a cat:0.5], 'a', [b]",
        "",
    ],
)
def test_plain_captions_of_the_world_are_not_odd(caption):
    assert list(odd_characters(caption)) == []


def test_every_caption_of_the_demo_is_fine():
    lines = files("calotype.demo").joinpath("captions.jsonl").read_text("utf-8").splitlines()
    captions = [text for line in lines for text in json.loads(line)["text"]]
    assert len(captions) > 20
    for caption in captions:
        assert not refusal(caption) and opener(caption) is None and not list(odd_characters(caption)), caption
