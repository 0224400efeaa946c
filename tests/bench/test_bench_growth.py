"""How time and memory grow: what is measured, the lines, the page."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from PIL import Image

import growth
from growth_page import Measurement, Point, growth_chart, growth_table, straight
from tables import marks
from watching import ContenderError, Memory, Watched

IMAGES = (200, 500, 1000)


def planted(point: Point) -> Measurement:
    """Four seconds at the start, and the rest by the work alone; memory grows with images."""
    work = point.images * point.replicates * len(point.batch_sizes)
    memory = 10**9 + 1000 * point.images
    return Measurement(point, 4 + work / 100, 3.0, memory, memory // 2, 2000 * point.images)


def test_one_of_three_grows_at_a_time():
    found = list(growth.points(IMAGES))
    assert [(point.series, point.count) for point in found] == [
        *(("Images", count) for count in IMAGES),
        *(("Replicates", count) for count in (1, 2, 4, 8)),
        *(("Batch sizes", count) for count in (2, 4, 8)),
    ]
    shapes = [(point.images, point.replicates, len(point.batch_sizes)) for point in found]
    assert shapes[:3] == [(200, 1, 2), (500, 1, 2), (1000, 1, 2)]
    assert shapes[3:7] == [(100, count, 2) for count in (1, 2, 4, 8)]
    assert shapes[7:] == [(200, 1, count) for count in (2, 4, 8)]
    assert found[-1].batch_sizes == (8, 16, 32, 64, 128, 256, 512, 1024)


def test_no_batch_size_exceeds_the_training_images():
    assert all(max(point.batch_sizes) <= point.images * 0.8 for point in growth.points([2000, 50_000]))


def test_the_line_is_that_of_least_squares():
    counts, seconds = [1, 2, 4, 8], [10.0, 13.0, 18.0, 32.0]
    expected = scipy.stats.linregress(counts, seconds)
    found = straight(counts, seconds)
    assert (found.each, found.start) == pytest.approx((expected.slope, expected.intercept))
    off = np.abs(expected.intercept + expected.slope * np.array(counts) - seconds) / seconds
    assert found.worst == pytest.approx(off.max())


def test_the_table_tells_every_run_and_the_lines():
    text = growth_table([planted(point) for point in growth.points(IMAGES)])
    assert "| images | 500 | 1 | 32, 128 | 14 | 3 | 1.0 | 0.5 | 0.0 |" in text
    assert "| batch sizes | 200 | 1 | 8: 8 to 1024 | 20 | 3 | 1.0 | 0.5 | 0.0 |" in text
    assert "- Images: 20.0 s for each further 1,000 images, on top of 4 s; the runs lie within 0%" in text
    assert "- Replicates: 2.0 s for each further replicate, on top of 4 s" in text
    assert "- Batch sizes: 2.0 s for each further batch size, on top of 4 s" in text


def test_the_chart_is_drawn():
    picture = Image.open(io.BytesIO(growth_chart([planted(point) for point in growth.points(IMAGES)])))
    pixels = np.asarray(picture.convert("L"))
    assert picture.width > 1400
    assert picture.height > 700
    assert (pixels[0] == 255).all()
    # Ink in each of the six panels.
    assert all((part < 128).any() for row in np.array_split(pixels, 2) for part in np.array_split(row, 3, 1))


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[Sequence[str]]]:
    """Nothing is trained: the run says that so many trials were completed."""

    def completes(missing: int) -> list[Sequence[str]]:
        ran: list[Sequence[str]] = []

        def watch(command: Sequence[str], log: Path, poll: Callable[[float], None]) -> Watched:
            ran.append(command)
            out = Path(command[command.index("--out") + 1])
            (out / "cache").mkdir(parents=True)
            (out / "cache" / "features").write_bytes(b"x" * 40_000)
            poll(0.0)
            (out / "cache" / "features").unlink()
            poll(0.2)
            sizes = command[command.index("--batch-sizes") + 1].split(",")
            replicates = int(command[command.index("--replicates") + 1])
            trials = [f"b{size}-r{one + 1}" for size in sizes for one in range(replicates)]
            lines = tuple((float(at), f"{name} complete") for at, name in enumerate(trials[missing:]))
            return Watched(lines, 20.0, Memory(3_000, 2_000))

        monkeypatch.setattr(growth, "watch", watch)
        return ran

    return completes


def test_growth_from_start_to_document(tmp_path: Path, watched: Callable[[int], list[Sequence[str]]]):
    ran = watched(0)
    document, results = tmp_path / "page.md", tmp_path / "results" / "growth.json"
    document.write_text("".join(marks("growth")), encoding="utf-8")
    places = {"document": document, "results": results, "work": tmp_path / "work"}
    growth.main(["--images", "16", "40", *(w for n, path in places.items() for w in (f"--{n}", str(path)))])
    assert len(ran) == 9
    with zipfile.ZipFile(tmp_path / "work" / "images-16" / "train.zip") as archive:
        assert sum(name.endswith(".jpg") for name in archive.namelist()) == 16
    first = json.loads(results.read_text(encoding="utf-8"))["points"][0]
    assert first["seconds"] == 20.0
    assert first["page_seconds"] == 19.0
    assert (first["memory"], first["private"]) == (3_000, 2_000)
    assert 40_000 <= first["disk"] < 60_000
    assert "| images | 40 | 1 |" in document.read_text(encoding="utf-8")
    assert results.with_suffix(".png").stat().st_size > 10_000


def test_a_trial_that_does_not_complete_stops_it(
    tmp_path: Path, watched: Callable[[int], list[Sequence[str]]]
):
    watched(1)
    with pytest.raises(ContenderError, match="2 trials must complete, but 1 did"):
        growth.main(["--images", "16", "--work", str(tmp_path)])
