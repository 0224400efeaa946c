"""A run's page: what must be known first, where the figures come from, and what may go wrong."""

from __future__ import annotations

import dataclasses
import io
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from batchscope import load
from batchscope.analysis import Settings, analyze, to_json
from batchscope.errors import HistoryError, ReportError, RunFolderError
from batchscope.history import encode_history
from batchscope.loading import parse_study, read_toml
from batchscope.records import TrialState
from batchscope.report.content import PageContent
from batchscope.run_report import analyze_run, content_of, page_content, write_run_report
from batchscope.running.folder import RunFolder
from batchscope.running.plan import plan_trials
from batchscope.running.store import DataSummary, SampleImage, Store
from run_samples import FIRST, SECOND, record, small_study


def encoded_png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    return buffer.getvalue()


STUDY = small_study(description="  Why.\n")
PNG = encoded_png()
SUMMARY = DataSummary(
    source="there",
    fingerprint="f00d",
    classes=("cat", "dog"),
    training=(3, 9),
    validation=(1, 2),
    skipped=(("a.jpg", "must not be empty"),),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with one whole trial and another not begun."""
    with RunFolder(tmp_path / "run").claim(STUDY) as store:
        store.plan([FIRST, SECOND])
        for epoch in (1, 2):
            store.add(FIRST, record(epoch))
        store.set_state(FIRST, TrialState.COMPLETE)
    return tmp_path / "run"


def content(folder: Path) -> PageContent:
    with Store(folder / "results.sqlite") as store:
        history = store.history(STUDY.name)
        return page_content(STUDY, store, history, analyze(history))


def open_store(folder: Path) -> Store:
    return Store(folder / "results.sqlite")


@pytest.mark.parametrize(
    ("state", "notice"),
    [
        (TrialState.WAITING, "1 of 2 trials have not begun: b16-r1."),
        (TrialState.RUNNING, "1 of 2 trials are not finished; the figures are those so far: b16-r1."),
        (TrialState.FAILED, "1 of 2 trials failed; the same command tries them again: b16-r1."),
        (TrialState.DIVERGED, "1 of 2 trials diverged: their loss became infinite or undefined: b16-r1."),
    ],
)
def test_trials_that_did_not_complete_are_told_first(folder: Path, state: TrialState, notice: str):
    with open_store(folder) as store:
        store.set_state(SECOND, state)
    assert content(folder).notices == (notice,)


def test_a_complete_run_needs_no_notice(folder: Path):
    with open_store(folder) as store:
        store.set_state(SECOND, TrialState.COMPLETE)
    assert content(folder).notices == ()


def test_the_study_stands_on_the_page_as_it_was_resolved(folder: Path):
    made = content(folder)
    assert (made.title, made.description) == ("tiny", "Why.")
    assert parse_study(read_toml(str(made.study_toml), "page"), "page") == STUDY


def test_without_a_session_or_images_nothing_is_made_up(folder: Path):
    made = content(folder)
    assert made.provenance is None
    assert made.data is None


def test_provenance_spans_all_sessions_and_tells_every_version(folder: Path):
    with open_store(folder) as store:
        first = store.start_session(
            "2026-01-01T00:00:00+00:00", {"command": "batchscope run x", "cores": "2"}
        )
        store.update_session(first, {"keras": "3.11"})
        second = store.start_session("2026-01-02T00:00:00+00:00", {"command": "other", "cores": "2"})
        store.update_session(second, {"keras": "3.12"}, ended="2026-01-02T01:00:00+00:00")
        store.keep_data(SUMMARY, [])
    made = content(folder).provenance
    assert made is not None
    assert made.command == "batchscope run x"
    assert dict(made.rows) == {
        "started": "2026-01-01T00:00:00+00:00",
        "ended": "2026-01-02T01:00:00+00:00",
        "sessions": "2",
        "seed": "7, replicates 1 to 1",
        "split seed": "2019",
        "weights": "none",
        "data": "there",
        "fingerprint of the data": "f00d",
        "cores": "2",
        "keras": "3.11, then 3.12",
    }


def test_a_session_that_was_cut_off_has_no_end(folder: Path):
    with open_store(folder) as store:
        store.start_session("2026-01-01T00:00:00+00:00", {})
    made = content(folder).provenance
    assert made is not None
    assert dict(made.rows)["ended"] == "not yet"


def test_the_sample_images_come_back_as_they_were(folder: Path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    samples = []
    for image, name, label in zip(images, ("x", "y"), ("dog", "cat"), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        samples.append(SampleImage(name, label, buffer.getvalue()))
    with open_store(folder) as store:
        store.keep_data(SUMMARY, samples)
    data = content(folder).data
    assert data is not None
    np.testing.assert_array_equal(data.images, images)
    assert (data.ids, data.labels, data.classes) == (("x", "y"), (1, 0), ("cat", "dog"))
    assert (data.training_counts, data.validation_counts) == ((3, 9), (1, 2))
    assert data.skipped == (("a.jpg", "must not be empty"),)


def test_grey_samples_come_back_with_one_colour_and_notes_reach_the_page(folder: Path):
    image = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    summary = dataclasses.replace(SUMMARY, shape=(8, 8, 1), notes=("The test part is left alone.",))
    with open_store(folder) as store:
        store.keep_data(summary, [SampleImage("x", "cat", buffer.getvalue())])
    data = content(folder).data
    assert data is not None
    np.testing.assert_array_equal(data.images, image[None, :, :, None])
    assert (data.noun, data.notes) == ("images", ("The test part is left alone.",))


def test_a_table_has_counts_and_no_sample(folder: Path):
    with open_store(folder) as store:
        store.keep_data(dataclasses.replace(SUMMARY, shape=(5,)), [])
    data = content(folder).data
    assert data is not None
    assert (data.noun, data.features, len(data.images)) == ("examples", 5, 0)
    assert (data.training_counts, data.validation_counts) == ((3, 9), (1, 2))


@pytest.mark.parametrize(
    ("png", "label"), [(b"", "cat"), (b"\x89PNG\r\n\x1a\n" + bytes(99), "cat"), (PNG, "horse")]
)
def test_a_sample_that_cannot_be_shown_is_refused(folder: Path, png: bytes, label: str):
    with open_store(folder) as store:
        store.keep_data(SUMMARY, [SampleImage("x", label, png)])
    with pytest.raises(RunFolderError, match=r"the run's database must hold a sample of its images, but: ."):
        content(folder)


@pytest.mark.parametrize("training", [(0, 0), ("3", 9), ()])
def test_a_number_of_training_images_that_cannot_be_is_refused(folder: Path, training: tuple[int, ...]):
    with open_store(folder) as store:
        store.keep_data(dataclasses.replace(SUMMARY, training=training), [])
    with pytest.raises(
        RunFolderError, match="must have at least 1 training examples, but its database tells of"
    ):
        content_of(str(folder), Settings())


def test_counts_of_the_sample_are_whole_numbers(folder: Path):
    with open_store(folder) as store:
        store.keep_data(dataclasses.replace(SUMMARY, validation=(1, "x")), [SampleImage("x", "cat", PNG)])
    with pytest.raises(
        ReportError, match=r"counts of examples must be whole numbers, but got \(3, 9, 1, 'x'\)"
    ):
        content(folder)


def test_facts_of_a_session_that_are_not_text_are_refused(folder: Path):
    with closing(sqlite3.connect(folder / "results.sqlite")) as database, database:
        database.execute("INSERT INTO session (started, facts) VALUES ('2026-01-01', '{\"cores\": 2}')")
    with pytest.raises(RunFolderError, match="a session's facts must be texts by name"):
        content(folder)


def test_a_source_is_a_folder_a_file_or_the_published_history(folder: Path, tmp_path: Path):
    with open_store(folder) as store:
        (tmp_path / "mine.csv").write_bytes(encode_history(store.history("tiny"), ".csv"))
    of_run, of_file = content_of(str(folder), Settings()), content_of(str(tmp_path / "mine.csv"), Settings())
    assert (of_run.title, of_file.title) == ("tiny", "mine")
    assert to_json(of_run.analysis) == to_json(of_file.analysis)
    assert (of_file.study_toml, of_file.notices) == (None, ())
    published = content_of("published", Settings(margin=0.02))
    assert (published.title, published.analysis.facts.margin) == ("published", 0.02)
    assert len(published.history) == 240


def test_the_study_tells_where_a_budget_in_updates_ends(tmp_path: Path):
    """Of 48 training images an epoch is 6 updates at batch size 8 and 3 at 16."""
    study = small_study(stages=[{"name": "one", "trainable": "head", "learning_rate": 1e-3, "updates": 6}])
    with RunFolder(tmp_path / "run").claim(study) as store:
        store.plan([FIRST, SECOND])
        store.keep_data(dataclasses.replace(SUMMARY, training=(20, 28)), [])
        store.add(FIRST, record(1))
        store.add(SECOND, record(1, updates=3))
        going = analyze_run(study, store, store.history("tiny"))
        assert [end.epoch for end in analyze(store.history("tiny")).facts.ends] == [1, 1]
        store.add(SECOND, record(2, updates=6))
        done = analyze_run(study, store, store.history("tiny"))
    for analysis in (going, done):
        assert [(end.batch_size, end.epoch) for end in analysis.facts.ends] == [(8, 1), (16, 2)]
        assert analysis.facts.stages[0].budget == "updates"
    assert [row.n_missing for row in going.final] == [0, 1]
    assert [row.n_missing for row in done.final] == [0, 0]
    assert [end.updates for end in done.facts.ends] == [6, 6]
    assert to_json(content_of(str(tmp_path / "run"), Settings()).analysis) == to_json(done)
    assert to_json(load(tmp_path / "run").analyze()) == to_json(done)


def test_a_folder_that_holds_no_run_is_refused(tmp_path: Path):
    with pytest.raises(RunFolderError, match="holds no run"):
        content_of(str(tmp_path), Settings())


def test_a_run_with_nothing_stored_is_refused(tmp_path: Path):
    with RunFolder(tmp_path / "run").claim(STUDY) as store:
        with pytest.raises(HistoryError, match="at least one row"):
            write_run_report(STUDY, store, tmp_path / "report")
        with pytest.raises(HistoryError, match="at least one row"):
            content_of(str(tmp_path / "run"), Settings())
    assert not (tmp_path / "report").exists()


def test_a_report_that_cannot_be_written_is_refused(folder: Path):
    (folder / "report").touch()
    with (
        open_store(folder) as store,
        pytest.raises(ReportError, match=r"report/history\.csv must be writable"),
    ):
        write_run_report(STUDY, store, folder / "report")


UNTIL = {"metric": "val_accuracy", "value": 0.7, "epochs": 3}


@pytest.mark.parametrize(
    ("keys", "how", "budget"),
    [
        ({"epochs": 2}, "same", "epochs"),
        ({"epochs": 2, "learning_rate": {"base": 0.1, "warmup_epochs": 1}}, "same", "epochs"),
        (
            {"updates": 9, "learning_rate": {"base": 0.1, "rule": "sqrt", "base_batch_size": 8}},
            "sqrt",
            "updates",
        ),
        ({"examples": 96}, "same", "examples"),
        ({"seconds": 4.0}, "same", "seconds"),
        ({"until": UNTIL}, "same", "until"),
        ({"seconds": 4.0, "learning_rate": {"grid": [0.1, 0.2]}}, "grid", "seconds"),
    ],
)
def test_the_study_tells_the_analysis_how_trials_end_and_learning_rates_came_about(
    tmp_path: Path, keys: dict[str, object], how: str, budget: str
):
    raw = {"name": "one", "trainable": "head", "learning_rate": 1e-3} | keys
    study, place = small_study(stages=[raw]), RunFolder(tmp_path / "run")
    with place.claim(study) as store:
        trials = plan_trials(study)
        store.plan(trials)
        store.keep_data(dataclasses.replace(SUMMARY, training=(24, 24)), [])
        for trial in trials:
            for epoch in range(1, 3 if trial.batch_size == 8 else 4):
                rate = trial.learning_rate or 1e-3
                store.add(trial, record(epoch, learning_rate=rate, probes={"selection_accuracy": rate}))
            store.set_state(trial, TrialState.COMPLETE)
    found = load(tmp_path / "run").analyze()
    assert (found.learning_rates.how, found.facts.stages[0].budget) == (how, budget)
    assert [point.learning_rate for point in found.learning_rates.chosen] == (
        [0.2] * 2 if how == "grid" else []
    )
    ends = {"epochs": [3, 3], "updates": [2, 3], "examples": [3, 3]}.get(budget, [2, 3])
    assert [end.epoch for end in found.facts.ends] == ends
    assert [row.n_reached for row in found.targets] == ([1, 1] if budget == "until" else [])
    assert load(tmp_path / "run").write_report().is_file()


@pytest.mark.parametrize("state", [TrialState.WAITING, TrialState.FAILED])
def test_the_run_tells_which_batch_sizes_are_still_to_get_to_a_target(tmp_path: Path, state: TrialState):
    """One that failed is no longer waited for; the page says that it did."""
    stage = {"name": "one", "trainable": "head", "learning_rate": 1e-3, "until": UNTIL | {"value": 0.01}}
    study = small_study(stages=[stage])
    with RunFolder(tmp_path / "run").claim(study) as store:
        store.plan([FIRST, SECOND])
        store.keep_data(dataclasses.replace(SUMMARY, training=(24, 24)), [])
        store.add(FIRST, record(1))
        store.set_state(FIRST, TrialState.COMPLETE)
        store.set_state(SECOND, state)
        found = analyze_run(study, store, store.history("tiny")).recommendation
    waited = [reason.text for reason in found.reasons if reason.rule == "still_running"]
    assert waited == (
        ["Trials that have not ended may still get to the target at less cost: 1 at batch size 16."]
        if state is TrialState.WAITING
        else []
    )


def test_the_studys_targets_are_analysed_unless_others_are_asked_for(tmp_path: Path):
    study, place = (
        small_study(targets=[{"metric": "val_accuracy", "value": 0.5}]),
        RunFolder(tmp_path / "run"),
    )
    with place.claim(study) as store:
        store.plan([FIRST])
        for epoch in (1, 2):
            store.add(FIRST, record(epoch))
    run = load(place.path)
    assert [(one.metric, one.value) for one in run.analyze().updates_to_target] == [("val_accuracy", 0.5)]
    other = run.analyze(targets=["val_loss=0.2", "val_accuracy=0.9"]).updates_to_target
    assert [(one.metric, one.value) for one in other] == [("val_loss", 0.2), ("val_accuracy", 0.9)]
    page = run.write_report(targets=["val_loss=0.25"]).read_text(encoding="utf-8")
    assert "Updates to a validation loss of 0.250" in page
    assert "Updates to a validation accuracy of 0.500" not in page
    assert "Updates to a validation accuracy of 0.500" in run.write_report().read_text(encoding="utf-8")
