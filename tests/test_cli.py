"""The command line as a person meets it: output, messages, exit codes, and what it loads."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

import batchscope
from batchscope.cli import main
from batchscope.history import encode_history, read_history
from batchscope.running import pool
from batchscope.running.folder import RunFolder
from batchscope.running.store import Store
from batchscope.studies import study_text
from run_samples import FIRST, SECOND, STUB, logged_threads, record, small_study

NO_TRACE = "Traceback"


class Outcome:
    """Exit code, standard output and standard error of a command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Command = Callable[..., Outcome]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Runs the command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pool, "_COMMAND", (sys.executable, str(STUB), "train"))

    def call(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["batchscope", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        code = ended.value.code
        return Outcome(code if isinstance(code, int) else 0, out, err)

    return call


def study_file(folder: Path) -> Path:
    from batchscope.loading import dump_study

    path = folder / "small.toml"
    path.write_text(dump_study(small_study()), encoding="utf-8")
    return path


def finished_run(path: Path) -> Path:
    """A run of two trials, without a report."""
    with RunFolder(path).claim(small_study()) as store:
        store.start_session("2026-01-01T00:00:00+00:00", {})
        store.plan([FIRST, SECOND])
        for trial in (FIRST, SECOND):
            for epoch in (1, 2):
                store.add(trial, record(epoch, train_loss=1 / (epoch + trial.batch_size)))
            store.set_state(trial, store.trials()[0].state.COMPLETE)
    return path


def test_studies_are_listed_without_loading_what_trains_or_draws():
    heavy = ("tensorflow", "keras", "pandas", "sklearn", "altair", "scipy", "statsmodels", "vl_convert")
    code = (
        "import sys\n"
        "from batchscope.cli import main\n"
        "sys.argv = ['batchscope', 'studies']\n"
        "try:\n    main()\n"
        "finally:\n"
        f"    sys.stderr.write(repr([name for name in {heavy!r} if name in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "[]")
    names = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert names == ["aerial-cactus", "aerial-cactus-2019", "demo", "fashion-mnist"]
    assert max(len(line) for line in done.stdout.splitlines()) <= 100


def test_a_study_is_shown_as_its_file_is(command: Command):
    shown = command("show", "aerial-cactus-2019")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out == study_text("aerial-cactus-2019").rstrip() + "\n"
    assert tomllib.loads(shown.out)["batch_sizes"] == [16, 32, 64, 128]


def test_the_version_is_printed(command: Command):
    assert command("--version").out == f"batchscope {metadata.version('batchscope')}\n"


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "batchscope", "--version"], capture_output=True, text=True, check=False
    )
    assert done.stdout == f"batchscope {metadata.version('batchscope')}\n"


def test_every_command_has_help(command: Command):
    for words in ([], ["run"], ["report"], ["export"], ["analyze"], ["studies"], ["show"], ["data"]):
        told = command(*words, "--help")
        assert told.code == 0
        assert len(told.out.splitlines()) > 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["show", "aerial"],
            "Error: aerial: 1 problem\n  the file: must be a built-in study (aerial-cactus,",
        ),
        (["analyze", "published", "--price-per-hour", "-1"], "price_per_hour must be above 0, but got -1.0"),
        (["analyze", "published", "--memory-limit", "much"], "memory_limit: must be a number of bytes, or a"),
        (
            ["run", "aerial"],
            "must be a built-in study (aerial-cactus, aerial-cactus-2019, demo, fashion-mnist)",
        ),
        (["run", "aerial-cactus"], "data.source: is required: give --data a folder in the layout of"),
        (
            ["run", "demo", "--set", "seed"],
            "Error: --set: 1 problem\n  'seed': must have the form KEY=VALUE",
        ),
        (["run", "demo", "--set", "sed=3"], "sed: unknown key; did you mean seed? (got 3)"),
        (["run", "demo", "--set", "stages.tuning.epochs=3"], "must name one of the stages"),
        (["run", "demo", "--set", "seed=x"], "seed: must be a valid integer (got 'x')"),
        (
            ["run", "demo", "--batch-sizes", "16,x"],
            "batch_sizes: must be whole numbers separated by commas (got '16,x')",
        ),
        (["run", "demo", "--batch-sizes", "16,16"], "each batch size must be listed once (got [16, 16])"),
        (["run", "demo", "--replicates", "0"], "replicates: must be greater than or equal to 1 (got 0)"),
        (["run", "demo", "--limit", "3"], "data.limit: must be greater than or equal to 10 (got 3)"),
        (["run", "demo", "--weights", "net.pkl"], "or a file that ends in .h5 or .keras (got 'net.pkl')"),
        (["run", "demo", "--data", "nowhere"], "nowhere: must be a folder with"),
        (["run", "demo", "--limit", "60", "--batch-sizes", "64"], "got batch size 64 and 45 examples"),
        (["report", "nowhere"], "Error: nowhere: holds no run"),
        (["export", "nowhere", "--to", "csv"], "Error: nowhere: holds no run"),
        (["run", "demo", "--track", "csv"], "can be tracked by mlflow and tensorboard, but got 'csv'"),
        (["analyze", "nowhere.csv"], "Error: nowhere.csv"),
        (["analyze", "published", "--margin", "0"], "margin must be above 0, but got 0.0"),
        (["analyze", "."], "Error: .: holds no run"),
        (["data", "synthetic-cactus", "--to", "d", "--images", "0"], "count >= 1"),
        (["data", "describe", "nowhere"], "nowhere: must be a folder with"),
        (["data", "describe", "small.npz"], "small.npz: must be a folder with"),
        (
            ["data", "describe", "keras:mnits"],
            "cifar10, cifar100, fashion_mnist, mnist (got 'keras:mnits')",
        ),
        (["data", "describe", "synthetic-cactus", "--label", "x"], "so it takes no label or validation"),
        (["run", "demo", "--data", "keras:imdb"], "data.source: must be keras: and one of cifar10"),
        (["run"], "needs either a study (or a function) or a command, but got none"),
    ],
)
def test_what_cannot_be_accepted_is_told_in_a_message(command: Command, arguments: list[str], message: str):
    told = command(*arguments)
    assert told.code == 2
    assert message in told.err
    assert told.err.startswith("Error: ")
    assert NO_TRACE not in told.err


@pytest.mark.parametrize("arguments", [["runs"], ["run", "demo", "--replicates", "x"]])
def test_a_command_mistyped_is_refused(command: Command, arguments: list[str]):
    told = command(*arguments)
    assert told.code == 2
    assert "Usage: " in told.err


def test_a_run_prints_lines_a_table_and_the_page(command: Command, tmp_path: Path):
    told = command("run", str(study_file(tmp_path)), "--out", "r", "--set", "seed=3", "--workers", "1")
    assert (told.code, told.err) == (0, "")
    lines = told.out.splitlines()
    assert lines[:2] == ["reading the data of synthetic-cactus", "2 trials, 0 done before"]
    assert re.fullmatch(r"1 worker with \d+ threads?: as asked for", lines.pop(2))
    assert re.fullmatch(
        r"b8-r1 epoch 1 one: accuracy 0\.6420 val 0\.5920, loss 0\.5000 val 0\.5000, 24 examples/s, "
        r"\d+ min \d\d s left",
        lines[2],
    )
    assert "b16-r1 complete (2 of 2 trials)" in lines
    assert "Summary by batch size" in told.out
    assert lines[-1] == f"Page: {Path('r/report/report.html')}"
    assert tomllib.loads(Path("r/study.toml").read_text(encoding="utf-8"))["seed"] == 3
    assert Path("r/report/report.html").is_file()


def test_a_run_says_what_its_probes_cost(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool, "_COMMAND", (sys.executable, str(STUB), "probe"))
    told = command("run", str(study_file(tmp_path)), "--out", "r", "--workers", "1")
    history = read_history(Path("r/report/history.csv"))
    trained = history.groupby("trial")["seconds"].max().sum()
    assert told.out.splitlines()[-2] == (
        f"Probes took {2 / trained:.0%} as long as training, off its clock: 2 s beside {trained:.0f} s "
        "over all trials."
    )


def test_failed_and_diverged_trials_are_told_in_the_exit_code(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = str(study_file(tmp_path))
    monkeypatch.setattr("batchscope.api.Run.write_report", lambda _: None)
    monkeypatch.setattr(pool, "_COMMAND", (sys.executable, str(STUB), "be killed", "b8-r1"))
    told = command("run", path, "--out", "r", "--quiet")
    assert (told.code, told.out) == (1, "")
    assert told.err.splitlines() == [
        "b8-r1 failed after 1 epoch",
        "  the worker process was ended by SIGKILL, as where memory runs out (then give fewer --workers)",
    ]
    monkeypatch.setattr(pool, "_COMMAND", (sys.executable, str(STUB), "diverge", "b16-r1"))
    told = command("run", path, "--out", "d", "--quiet")
    assert (told.code, told.out, told.err) == (1, "", "b16-r1 diverged after 1 epoch\n")
    again = command("run", path, "--out", "d", "--quiet")
    assert (again.code, again.out, again.err) == (1, "", "b16-r1 diverged after 1 epoch\n")


def test_workers_and_cache_limit_reach_the_run(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("batchscope.api.Run.write_report", lambda _: None)
    study = str(study_file(tmp_path))
    told = command("run", study, "--out", "r", "--workers", "2", "--cache-limit", "1.5GB")
    assert told.code == 0
    assert len(logged_threads(Path("r/logs"))) == 2
    told = command("run", study, "--out", "s", "--workers", "0")
    assert (told.code, told.err) == (2, "Error: run: 1 problem\n  workers: must be at least 1 (got 0)\n")
    told = command("run", study, "--out", "s", "--cache-limit", "much")
    assert told.code == 2
    assert "cache_limit: must be a number of bytes, or a size such as 500MB, 8GB or 8GiB" in told.err
    assert not Path("s").exists()


def test_quiet_prints_nothing(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("batchscope.api.Run.write_report", lambda _: None)
    told = command("run", str(study_file(tmp_path)), "--out", "r", "--quiet")
    assert (told.code, told.out, told.err) == (0, "", "")


def test_a_folder_with_another_study_is_refused_with_the_difference(command: Command, tmp_path: Path):
    finished_run(tmp_path / "r")
    told = command("run", str(study_file(tmp_path)), "--out", "r", "--replicates", "3", "--skip-bad-images")
    assert told.code == 2
    assert told.err.splitlines() == [
        "Error: r: holds a run of a study that differs from this one:",
        "  data.skip_bad_images: False -> True",
        "Give --out another folder, or repeat the command that began the run.",
    ]


def test_a_report_is_rebuilt_from_the_database(command: Command, tmp_path: Path):
    folder = finished_run(tmp_path / "r")
    told = command("report", "r")
    assert (told.code, told.out, told.err) == (0, f"{Path('r/report/report.html')}\n", "")
    files = {path.name for path in (folder / "report").iterdir()}
    assert {"report.html", "history.csv", "history.parquet", "b-together-accuracy.svg"} <= files
    with Store(folder / "results.sqlite") as store:
        stored = encode_history(store.history("tiny"), ".csv")
    assert (folder / "report" / "history.csv").read_bytes() == stored
    shutil.rmtree(folder / "report")
    command("report", "r")
    assert {path.name for path in (folder / "report").iterdir()} == files
    assert (folder / "report" / "history.csv").read_bytes() == stored


def test_a_run_is_exported_and_told_where(command: Command, tmp_path: Path):
    folder = finished_run(tmp_path / "r")
    told = command("export", "r", "--to", "csv", "--out", "mine.csv")
    assert (told.code, told.out, told.err) == (0, "mine.csv\n", "")
    with Store(folder / "results.sqlite") as store:
        assert Path("mine.csv").read_bytes() == encode_history(store.history("tiny"), ".csv")
    told = command("export", "r", "--to", "csv", "--tracking-uri", "x")
    assert (told.code, told.out) == (2, "")
    assert told.err.startswith("Error: --tracking-uri is for mlflow alone")


def test_analyze_says_the_verdict_first(command: Command):
    told = command("analyze", "published")
    assert (told.code, told.err) == (0, "")
    words = " ".join(told.out.split())
    assert words.startswith("Verdict What looks like a generalization gap follows the number of updates")
    assert "0.008 at batch size 16 and 0.256 at batch size 128" in words


def test_analyze_prints_strict_json(command: Command, project: Path):
    told = command("analyze", "published", "--json")
    assert (told.code, told.err) == (0, "")

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    parsed = json.loads(told.out, parse_constant=refuse)
    page = (project / "docs" / "json.md").read_text(encoding="utf-8")
    table = page.partition("## Top level")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)
    assert list(parsed) == documented
    assert parsed["batch_sizes"] == [16, 32, 64, 128]
    assert told.out.endswith("}\n")
    assert not told.out.endswith("\n\n")


def test_analyze_takes_a_run_and_a_file_alike(command: Command, tmp_path: Path):
    folder = finished_run(tmp_path / "r")
    with Store(folder / "results.sqlite") as store:
        Path("x.csv").write_bytes(encode_history(store.history("tiny"), ".csv"))
    assert read_history(Path("x.csv")).shape == (4, 14)
    of_run, of_file = command("analyze", "r", "--json"), command("analyze", "x.csv", "--json")
    assert (of_run.code, of_run.out) == (0, of_file.out)


def test_analyze_writes_page_and_figures_and_tells_where(command: Command, tmp_path: Path):
    folder = finished_run(tmp_path / "r")
    with Store(folder / "results.sqlite") as store:
        Path("x.csv").write_bytes(encode_history(store.history("tiny"), ".csv"))
    told = command("analyze", "x.csv", "--html", "pages/p.html", "--figures", "f")
    expected = "Page: pages/p.html\nFigures: 16 files in f\n"
    assert (told.code, told.out, told.err) == (0, expected, "")
    assert "<title>x" in Path("pages/p.html").read_text(encoding="utf-8")
    assert Path("f/b-together-accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert {path.suffix for path in Path("f").iterdir()} == {".png", ".svg"}


def test_synthetic_images_are_written_in_the_competitions_layout(command: Command):
    told = command("data", "synthetic-cactus", "--to", "cacti", "--images", "20")
    assert (told.code, told.out, told.err) == (0, "cacti\n", "")
    rows = Path("cacti/train.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "id,has_cactus"
    assert len(rows) == 21
    assert sum(row.endswith(",1") for row in rows) == 15
    with zipfile.ZipFile("cacti/train.zip") as archive:
        assert sorted(archive.namelist()) == sorted(f"train/{row.split(',')[0]}" for row in rows[1:])
    told = command("data", "synthetic-cactus", "--to", "cacti", "--images", "20")
    assert told.code == 2
    assert "must be a new or an empty folder" in told.err


def test_data_are_described_in_the_terminal_and_as_a_page(command: Command):
    rows = [f"{place},{place * place},{'uvw'[place % 3]}" for place in range(30)]
    Path("flowers.csv").write_text("\n".join(["a,b,kind", *rows]), encoding="utf-8")
    Path("more.csv").write_text("\n".join(["a,b,kind", *rows[:4]]), encoding="utf-8")
    options = ("--label", "kind", "--validation", "more.csv", "--html", "p/x.html")
    told = command("data", "describe", "flowers.csv", *options)
    assert (told.code, told.err) == (0, "")
    words = " ".join(told.out.split())
    assert "examples 34: 30 for training, 4 for validation (given by the source)" in words
    assert "each a row of 2 features" in words
    assert "u 10 2 v 10 1 w 10 1" in words
    assert told.out.splitlines()[-1] == "Page: p/x.html"
    assert "Examples per class, of 2 features" in Path("p/x.html").read_text(encoding="utf-8")


def test_the_summary_is_given_at_chosen_epochs(command: Command):
    told = command("analyze", "published", "--epochs", "5,10", "--metric", "val_loss", "--json")
    found = json.loads(told.out)
    assert sorted({row["epoch"] for row in found["summary"]}) == [5, 10, 20]
    assert found["metric"] == "val_loss"
    assert command("analyze", "published", "--epochs", "5;10").code == 2


def test_a_target_is_told_by_analyze_and_report_alike(command: Command, tmp_path: Path):
    done = command("analyze", "published", "--target", "val_accuracy=0.9", "--json")
    [target] = json.loads(done.out)["updates_to_target"]
    history = read_history(Path(batchscope.__file__).parent / "published" / "published_2019.csv")
    there = history[history["val_accuracy"] >= 0.9].groupby(["batch_size", "replicate"])["updates"].min()
    reached = [trial for trial in target["trials"] if trial["outcome"] == "reached"]
    assert {(one["batch_size"], one["replicate"]): one["updates"] for one in reached} == there.to_dict()
    done = command("analyze", "published", "--target", "val_accuracy=0.9")
    assert "Updates to a validation accuracy of 0.900" in done.out
    assert "Critical batch size" in done.out
    assert "Critical batch size" not in command("analyze", "published").out
    for name in ("analyze", "report"):
        done = command(name, "published", "--target", "val_accuracy=90")
        assert done.code == 2
    done = command("analyze", "published", "--target", "val_accuracy=90")
    assert "'val_accuracy=90': value must be at most 1 for val_accuracy; it is 90.0" in done.err
