"""The whole bench, its contenders replaced by planted timelines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import run
from contenders import CONTENDERS, Setting
from protocol import Event, Protocol
from tables import marks
from timeline import Stamped, Timeline, assemble

FACTS = "date processor cores system python batchscope keras tensorflow torch load"
SPEED = dict(zip(CONTENDERS, (400.0, 100.0, 200.0), strict=True))


def planted(who: str, setting: Setting) -> Timeline:
    """Start-up of 4 s, and epochs whose time goes with their examples alone."""
    at, stamped = 4.0, []
    for trial in setting.protocol.trials():
        stamped.append(Stamped(at, Event("started", trial)))
        work = setting.work(trial[0])
        for stage in setting.protocol.stages:
            for epoch in range(1, stage.epochs + 1):
                at += work.examples / SPEED[who]
                stamped.append(Stamped(at, Event("epoch", trial, stage.name, epoch, work, 1.0)))
        stamped.append(Stamped(at, Event("ended", trial)))
    return assemble(stamped, at + 1.0, 10**9)


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Nothing is trained; who would have run, and where."""
    ran: list[tuple[str, str]] = []

    def record(who: str, setting: Setting) -> Timeline:
        ran.append((who, setting.folder.name))
        assert Protocol.load(setting.folder / "protocol.json") == setting.protocol
        return planted(who, setting)

    monkeypatch.setattr(run, "_run", record)
    monkeypatch.setattr(run, "_python", lambda script, *_: {"matrix_rate.py": "100.0"}.get(script, "1000000"))
    monkeypatch.setattr(run, "_surroundings", lambda _: dict.fromkeys(FACTS.split(), "x"))
    return ran


def test_the_bench_from_start_to_document(order: list[tuple[str, str]], tmp_path: Path):
    document, results = tmp_path / "page.md", tmp_path / "results" / "bench.json"
    document.write_text("".join(marks("bench")), encoding="utf-8")
    places = {"document": document, "results": results, "work": tmp_path / "work"}
    words = [word for name, path in places.items() for word in (f"--{name}", str(path))]
    run.main(["--images", "160", "--repeats", "3", "--studies", "aerial-cactus", *words])

    assert order[:2] == [(CONTENDERS[0], "aerial-cactus-320"), (CONTENDERS[0], "aerial-cactus-480")]
    turns = [who for who, folder in order[2:] if folder == "aerial-cactus-160"]
    assert [turns[repeat * 3] for repeat in range(3)] == list(CONTENDERS)
    assert {who: turns.count(who) for who in CONTENDERS} == dict.fromkeys(CONTENDERS, 3)

    page = document.read_text(encoding="utf-8")
    rows = {
        cells[0]: cells[1:]
        for line in page.splitlines()
        if line.startswith("|") and (cells := [cell.strip() for cell in line.strip("|").split("|")])
    }
    # 12 trials, 20 epochs, 14,000 images, and 5 s of start-up and closing.
    hours = [(12 * 20 * 14_000 / speed + 5) / 3600 for speed in SPEED.values()]
    assert rows["**Full protocol, projected, h**"] == [f"**{value:.2f}**" for value in hours]
    assert rows["one epoch of fine_tuning"][1:] == ["4.0 times (4.0 to 4.0)", "2.0 times (2.0 to 2.0)"]
    whole = planted(CONTENDERS[0], _setting(480, 3, tmp_path)).wall
    assert f"took {whole:.0f} s; the parts of the runs above predict {whole:.0f} s (+0%)" in page

    stored = json.loads(results.read_text(encoding="utf-8"))["protocols"]["aerial-cactus"]["runs"]
    assert {who: len(timelines) for who, timelines in stored.items()} == dict.fromkeys(CONTENDERS, 3)
    assert len(stored[CONTENDERS[1]][0]["epochs"]) == 4 * 2 * 2


def _setting(images: int, epochs: int, folder: Path) -> Setting:
    study = run.reduced("aerial-cactus", images, epochs)
    return Setting(study, run.protocol_of(study), (images * 4 // 5, images // 5), folder)
