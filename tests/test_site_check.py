"""What is held against the built site is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripted import script

problems = script("site_check").problems

PAGE = '<html><head>{head}</head><body><h1 id="top">Top</h1>{body}</body></html>'


def site(folder: Path, head: str = "", body: str = "", style: str = "") -> Path:
    (folder / "sub").mkdir()
    (folder / "other.html").write_text('<p id="there">There</p>', encoding="utf-8")
    (folder / "sub" / "a b.txt").write_text("file", encoding="utf-8")
    (folder / "style.css").write_text(style, encoding="utf-8")
    (folder / "index.html").write_text(PAGE.format(head=head, body=body), encoding="utf-8")
    return folder


def test_a_sound_site_has_no_problems(tmp_path: Path):
    links = [
        "#top",
        "other.html",
        "other.html#there",
        "sub/a%20b.txt",
        "other.html?v=1",
        "https://example.org/x",
    ]
    body = "".join(f'<a href="{link}">x</a>' for link in links) + '<img src="data:image/png;base64,AA==">'
    head = '<link rel="stylesheet" href="style.css?digest=1">'
    assert problems(site(tmp_path, head, body, "a { background: url('data:x') }")) == []


@pytest.mark.parametrize(
    ("part", "text", "told"),
    [
        (
            "head",
            '<script src="https://cdn.example.org/a.js"></script>',
            "index.html: loads https://cdn.example.org/a.js",
        ),
        (
            "head",
            '<link rel="preconnect" href="//fonts.example.org">',
            "index.html: loads //fonts.example.org",
        ),
        ("body", '<img src="HTTP://example.org/a.png">', "index.html: loads HTTP://example.org/a.png"),
        ("body", '<p style="background: url(https://e.org/a.png)">', "index.html: loads https://e.org/a.png"),
        (
            "style",
            '@import "https://fonts.example.org/css";',
            "style.css: loads https://fonts.example.org/css",
        ),
        ("style", "@font-face { src: url(//e.org/f.woff2) }", "style.css: loads //e.org/f.woff2"),
        ("body", '<a href="missing.html">x</a>', "index.html: leads nowhere: missing.html"),
        ("body", '<a href="#nowhere">x</a>', "index.html: leads nowhere: #nowhere"),
        ("body", '<a href="other.html#top">x</a>', "index.html: leads nowhere: other.html#top"),
        ("body", '<img src="sub/missing.png">', "index.html: leads nowhere: sub/missing.png"),
    ],
)
def test_each_problem_is_told(tmp_path: Path, part: str, text: str, told: str):
    assert problems(site(tmp_path, **{part: text})) == [told]


def test_a_folder_without_pages_is_no_site(tmp_path: Path):
    assert problems(tmp_path) == [f"{tmp_path}: holds no page"]
