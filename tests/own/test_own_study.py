"""Studies of a function or a command: what is accepted, what is refused, and how two are compared."""

from __future__ import annotations

import functools
import threading

import pytest

import batchscope
from batchscope.errors import StudyError, TrainingError
from batchscope.loading import difference, dump_study, parse_study, read_toml
from batchscope.own.command import command_name
from batchscope.own.function import function_name, function_spec, pack, unpack
from batchscope.own_study import CommandStudy, FunctionStudy
from batchscope.running.plan import plan_trials

COMMAND = """
name = "mine"
batch_sizes = [16, 8]
replicates = 2
command = "python train.py --batch-size {batch_size} --seed {seed}"
"""
FUNCTION = """
name = "mine"
batch_sizes = [16, 8]
replicates = 2
function = { name = "mine:train" }
"""


def parsed(text: str) -> CommandStudy | FunctionStudy:
    study = parse_study(read_toml(text, "mine.toml"), "mine.toml")
    assert isinstance(study, CommandStudy | FunctionStudy)
    return study


def problems(text: str) -> list[str]:
    with pytest.raises(StudyError) as caught:
        parsed(text)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(("text", "kind"), [(COMMAND, CommandStudy), (FUNCTION, FunctionStudy)])
def test_a_studys_kind_is_told_by_its_key_and_survives_its_file(text: str, kind: type):
    study = parsed(text)
    assert type(study) is kind
    assert (study.seed, study.learning_rates, study.epochs) == (0, None, None)
    assert parsed(dump_study(study)) == study
    assert [trial.name for trial in plan_trials(study)] == ["b8-r1", "b16-r1", "b8-r2", "b16-r2"]


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("", "command: must have at least 1 character"),
        ("  ", "command: must name a program"),
        ("python 'train.py", "command: must be words and quotes as in a shell, but: No closing quotation"),
        ("python {batchsize}", "command: what stands in braces must be one of {batch_size}, {replicate}, "),
        ("python {batch_size:04d}", "{batch_size:04d} is not; a brace that stands for itself is written"),
        ("python {seed!r}", "but {seed!r} is not"),
        ("python {}", "but {} is not"),
        ("python { ", "command: a brace that stands for itself must be written twice: expected '}'"),
        ("python {learning_rate}", "learning_rates must be given, for the command asks for {learning_rate}"),
    ],
)
def test_a_command_that_cannot_be_run_is_refused(command: str, problem: str):
    [told] = problems(COMMAND.replace("python train.py --batch-size {batch_size} --seed {seed}", command))
    assert problem in told


RATES = "learning_rates = [0.1, 0.01]\n"


@pytest.mark.parametrize(
    ("records", "more"),
    [
        ("{trial}", RATES),
        ("{folder}/r", RATES),
        ("{batch_size}-{replicate}", ""),
        ("{batch_size}-{seed}", "learning_rates = [0.1]\n"),
        ("{batch_size}-{seed}-{learning_rate}", RATES),
    ],
)
def test_each_trial_may_have_a_file_of_records(records: str, more: str):
    assert parsed(COMMAND + more + f'records = "{records}"\n').records == records  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("records", "more"),
    [
        ("r.jsonl", ""),
        ("{{trial}}", ""),
        ("{batch_size}", ""),
        ("{replicate}-{seed}", ""),
        ("{batch_size}-{replicate}", RATES),
        ("{learning_rate}-{seed}", RATES),
    ],
)
def test_a_file_of_records_for_several_trials_is_refused(records: str, more: str):
    [told] = problems(COMMAND + more + f'records = "{records}"\n')
    assert told == (
        "the file: records must be another file for each trial, but nothing in it tells them apart: "
        f"{records}; "
        "put {trial} or {folder} in it, or {batch_size} with {replicate} or {seed}"
    ) + (", and {learning_rate}, for there are several" if more else "")


def test_other_keys_are_checked_as_in_any_study():
    text = COMMAND.replace("[16, 8]", "[16, 16]") + 'records = "{folder}/{epoch}"\nepochs = 0\nlayers = []\n'
    told = problems(text)
    assert [problem.partition(":")[0] for problem in told] == ["batch_sizes", "epochs", "records", "layers"]
    assert told[3].startswith(
        "layers: unknown key; known are name, description, batch_sizes, replicates, seed"
    )
    assert problems(FUNCTION.replace('name = "mine:train"', "nam = 1")) == [
        "function.name: is required",
        "function.nam: unknown key; did you mean name? (got 1)",
    ]


def test_a_brace_may_stand_for_itself():
    text = COMMAND.replace("--seed {seed}", "--json {{}}")
    assert "{{}}" in parsed(text).command  # type: ignore[union-attr]


def test_another_source_of_the_same_function_is_no_other_study():
    one, two = (parsed(FUNCTION.replace('" }', f'", sha256 = "{digit * 64}" }}')) for digit in "ab")
    assert one != two
    assert difference(one, two) == []
    assert difference(one, parsed(FUNCTION.replace("mine:train", "mine:other"))) == [
        "function.name: mine:train -> mine:other"
    ]
    assert "command: absent -> python" in "\n".join(difference(one, parsed(COMMAND)))


class Callable:
    def __call__(self, trial: object) -> None: ...


def named(trial: object) -> None: ...


def test_a_function_is_known_by_its_name_and_source():
    spec = function_spec(named)
    assert spec.name == f"{__name__}:named"
    assert spec.sha256 is not None
    changed = function_spec(lambda trial: None)
    assert (changed.name.rpartition(".")[2], changed.sha256 == spec.sha256) == ("<lambda>", False)
    assert function_spec(functools.partial(named)) == spec
    assert function_spec(Callable()).name == f"{__name__}:Callable"
    made: dict[str, object] = {"__name__": "elsewhere"}
    exec("def train(trial): pass", made)
    spec = function_spec(made["train"])  # type: ignore[arg-type]
    assert (spec.name, spec.sha256) == ("elsewhere:train", None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (function_name(named), "named"),
        (function_name(lambda trial: None), "lambda"),
        (command_name("python -u src/my_train.py --lr 1"), "my-train"),
        (command_name("/opt/train --x"), "train"),
        (command_name("'"), "own"),
    ],
)
def test_a_study_is_named_after_its_code(name: str, expected: str):
    assert name == expected


def test_a_function_goes_along_with_all_that_it_uses():
    offset = 3

    def add(trial: int) -> int:
        return trial + offset

    assert unpack(pack(add))(4) == 7  # type: ignore[arg-type]


def test_a_function_that_cannot_be_sent_is_refused_with_the_remedy():
    lock = threading.Lock()
    with pytest.raises(TrainingError, match=r"<lambda>: the function must be .* but: .*lock.* within it$"):
        pack(lambda trial: lock.acquire())


@pytest.mark.parametrize(
    ("study", "options", "problem"),
    [
        (None, {}, "command: needs either a study (or a function) or a command, but got none"),
        (
            "demo",
            {"command": "x"},
            "command: needs either a study (or a function) or a command, but got both",
        ),
        ("demo", {"records": "x"}, "records: must come with a command (got x)"),
        ("demo", {"learning_rates": [0.1]}, "learning_rates: unknown key; known are"),
        ("demo", {"epochs": 3}, "epochs: unknown key"),
        (named, {}, "batch_sizes: is required"),
        (named, {}, "replicates: is required"),
        (named, {"data": "x"}, "data: unknown key"),
        (named, {"weights": "x"}, "model: unknown key"),
        (named, {"records": "x"}, "records: must come with a command"),
        (named, {"learning_rates": [0.0]}, "learning_rates.1: must be greater than 0"),
        (named, {"learning_rates": [0.1, 0.1]}, "learning_rates: each learning rate must be listed once"),
        (named, {"epochs": 0}, "epochs: must be greater than or equal to 1"),
        (named, {"name": "a b"}, "name: must match pattern"),
    ],
)
def test_options_that_do_not_go_together_are_refused(study: object, options: dict[str, object], problem: str):
    with pytest.raises(StudyError) as caught:
        batchscope.run(study, **options)  # type: ignore[arg-type]
    assert problem in str(caught.value)


def test_a_file_that_only_names_a_function_cannot_be_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match=r"function: must be given by a Python program: batchscope\.run\("):
        batchscope.run(parsed(FUNCTION))
    assert list(tmp_path.iterdir()) == []
