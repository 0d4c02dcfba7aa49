"""Real photos, small, with a caption file each but the last; the real server, and pages of a real browser."""

import shutil
from contextlib import ExitStack

import pytest
from chromium import DESK, chromium
from PIL import Image
from studio_client import reviewing
from studio_server import served

CAPTIONS = {
    "astronaut.png": "a woman in a red suit, smiling",
    "chelsea.png": "a ginger cat",
    "coffee.png": "a cup of coffee, a red table",
    "rocket.jpg": "a rocket at night",
    "motorcycle_left.png": None,
}


@pytest.fixture(scope="session")
def small_photos(tmp_path_factory, skimage_data):
    folder = tmp_path_factory.mktemp("studio")
    for place, name in enumerate(CAPTIONS):
        with Image.open(skimage_data / name) as photo:
            photo.convert("RGB").resize((160 + 16 * place, 120)).save(folder / name)
    return folder


@pytest.fixture
def folder(small_photos, tmp_path):
    """A copy to be changed."""
    copy = shutil.copytree(small_photos, tmp_path / "photos")
    for name, caption in CAPTIONS.items():
        if caption is not None:
            (copy / name).with_suffix(".txt").write_text(f"{caption}\n")
    return copy


@pytest.fixture
def client(folder):
    with reviewing(folder) as client:
        yield client


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def studio():
    """Starts servers; they are there until no page asks any more."""
    with ExitStack() as servers:
        yield lambda *source: servers.enter_context(served(*source))


@pytest.fixture
def visit(browser, studio):
    """Opens pages; at the end nothing was asked of anybody but the server, and nothing was complained of."""
    contexts, asked, complaints, origins = [], [], [], []

    def opened(server, size=DESK, scheme="light", refusals=()):
        origins.append(server.origin)
        width, height = size
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        context.on("request", lambda request: asked.append(request.url))
        page = context.new_page()
        page.set_default_timeout(30_000)

        def complain(text):
            # The browser itself logs answers that are refusals; a test names those that it asks for.
            if not any(one in text for one in refusals):
                complaints.append(text)

        page.on("console", lambda message: complain(message.text))
        page.on("pageerror", lambda error: complain(str(error)))
        page.on("dialog", lambda dialog: complain(dialog.message) or dialog.accept())
        page.goto(server.address)
        page.wait_for_selector("#pane h2:not(:empty)", state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [url for url in asked if not url.startswith((*origins, "data:", "blob:"))] == []
    assert complaints == []


@pytest.fixture
def server(studio, folder):
    return studio(folder)
