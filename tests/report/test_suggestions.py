"""The page of suggested images, driven in a headless browser."""

import io

import numpy as np
import pytest
from PIL import Image

from fuzzyseg.report.suggestions import write_suggestions

HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>{{ 7*7 }}" + "W" * 240
OVERLAYS = ("prediction", "k", "uncertainty")


def picture(value, kind="png"):
    """A picture of 40 x 30 pixels of one colour, encoded."""
    written = io.BytesIO()
    Image.fromarray(np.full((30, 40, 3), value, np.uint8)).save(written, kind)
    return written.getvalue()


@pytest.fixture
def page(tmp_path):
    """The page of two images; the name of the first one and of a class are hostile."""
    parts = {"fuzzy": 0.125, "entropy": 0.5, "disagreement": 0.25}
    rows = [
        {"rank": 1, "image": f"/photos/{HOSTILE}.png", "score": 0.291, **parts},
        {"rank": 2, "image": "/photos/b.png", "score": 0.2, "fuzzy": 0.1, "entropy": 0.3},
    ]
    views = [{"image": picture(9, "jpeg"), **{name: picture(60 * n) for n, name in enumerate(OVERLAYS)}} for _ in rows]
    legend = [(HOSTILE, (213, 94, 0)), ("road", (0, 0, 0))]
    write_suggestions(tmp_path / "suggestions.html", rows, views, f"Images to label next, by {HOSTILE}", legend)
    return tmp_path / "suggestions.html"


def test_every_control_works(page, open_page):
    opened = open_page(page)
    background = "getComputedStyle(document.body).backgroundColor"
    before = opened.evaluate(background)
    opened.click("#theme")
    assert opened.evaluate(background) != before
    frames = opened.locator(".frame")
    assert frames.count() == 2

    def shown():
        return frames.evaluate_all(
            "all => all.map(f => [...f.querySelectorAll('img + img')].filter(i => !i.hidden)"
            ".map(i => `${i.dataset.view} ${i.className}`))"
        )

    def keys():
        return opened.locator(".key:visible").evaluate_all("all => all.map(key => key.dataset.for)")

    assert shown() == [["prediction right", "uncertainty left"]] * 2 and keys() == ["prediction", "uncertainty"]
    opened.click("[data-side='left'][data-choose='k']")
    assert shown() == [["prediction right", "k left"]] * 2 and keys() == ["prediction", "k"]
    assert opened.locator("[data-side='left'][aria-pressed='true']").all_inner_texts() == ["K"]
    opened.click("[data-side='right'][data-choose='image']")  # the photograph itself, below the overlays
    assert shown() == [["k left"]] * 2 and frames.first.locator("img").first.is_visible()
    wipe = frames.first.locator(".wipe")
    wipe.fill("20")
    assert frames.evaluate_all("all => all.map(f => f.style.getPropertyValue('--x'))") == ["20%", "50%"]
    wipe.focus()
    opened.keyboard.press("ArrowRight")
    assert frames.first.evaluate("f => f.style.getPropertyValue('--x')") == "20.5%"
    opened.locator("#strength").fill("30")
    overlay = frames.last.locator("img[data-view='k']")
    assert overlay.evaluate("i => getComputedStyle(i).opacity") == "0.3"
    assert overlay.evaluate("i => i.naturalWidth") == 40  # decoded


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_hostile_names_are_text_and_fit_on_the_screen(page, open_page, width, scheme):
    opened = open_page(page, width, color_scheme=scheme)
    assert opened.locator("script").count() == 1 and opened.locator("img[onerror]").count() == 0
    assert opened.locator("h1").inner_text() == f"Images to label next, by {HOSTILE}"
    assert opened.locator(".shot .name").first.get_attribute("title") == f"/photos/{HOSTILE}.png"
    assert opened.locator(".key[data-for='prediction'] li").all_inner_texts() == [HOSTILE, "road"]
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    shot = opened.locator(".shot").first.bounding_box()
    score = opened.locator(".shot figcaption .soft").first.bounding_box()
    words = opened.locator(".key[data-for='uncertainty'] li").first.bounding_box()
    assert words["height"] < 30  # one line
    assert opened.locator("#theme").bounding_box()["x"] > 0.8 * min(width, 1160)  # at the right edge
    assert score["x"] + score["width"] <= shot["x"] + shot["width"]  # a long name does not push it out


def test_scores_are_shown_with_their_parts(page, open_page):
    captions = open_page(page).locator(".shot figcaption")
    assert [text.split()[0] for text in captions.all_inner_texts()] == ["1", "2"]
    assert captions.locator(".soft").all_inner_texts() == ["uncertain 29.1%", "uncertain 20.0%"]
    titles = captions.locator(".soft").evaluate_all("all => all.map(e => e.title.trim())")
    assert titles == ["fuzzy 12.5% entropy 50.0% disagreement 25.0%", "fuzzy 10.0% entropy 30.0%"]


def test_images_beyond_the_size_of_the_page_are_counted(tmp_path, open_page, monkeypatch):
    from fuzzyseg.report import suggestions

    views = {"image": picture(9, "jpeg"), **{name: picture(60) for name in OVERLAYS}}
    rows = [{"rank": n, "image": f"{n}.png", "score": 0.5} for n in (1, 2, 3)]
    monkeypatch.setattr(suggestions, "MAX_BYTES", 3 * sum(map(len, views.values())))  # two, as base64 adds a third
    write_suggestions(tmp_path / "a.html", rows, [views] * 3, "x", [])
    opened = open_page(tmp_path / "a.html")
    assert opened.locator(".shot").count() == 2 and opened.locator("h2").inner_text() == "3 images"
    assert "1 images omitted" in opened.locator("#gallery").inner_text()
