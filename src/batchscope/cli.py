"""The command line: each command parses, calls one thing and prints.

Exit codes: 0 all went well; 1 a trial failed or diverged, the others are stored; 2 the command, the study
or the data could not be accepted; 128 and the number of the signal that stopped the run, as 130 for Ctrl-C
and 143 for SIGTERM.
"""

from __future__ import annotations

import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batchscope.cli_data import data_app
from batchscope.cli_options import Change, Data, Limit, Weights
from batchscope.cli_probe import probe
from batchscope.errors import BatchscopeError, BatchscopeWarning, Problem, StudyError

if TYPE_CHECKING:
    from batchscope.api import Run

__all__ = ["app", "main"]

app = typer.Typer(
    name="batchscope",
    help="What the mini-batch size does to a training run, and whether the effect is real.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(data_app, name="data")


Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="METRIC=VALUE",
        help="Tell how many updates it takes to, say, val_accuracy=0.85; instead of the study's targets.",
    ),
]


def main() -> None:
    """Runs the command line; errors made on purpose become one message and exit code 2."""
    try:
        app()
    except BatchscopeError as error:
        from batchscope.masking import masked

        typer.echo(f"Error: {masked(str(error))}", err=True)
        sys.exit(2)


def _version(wanted: bool) -> None:
    if wanted:
        from batchscope import __version__

        typer.echo(f"batchscope {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


@app.command()
def run(
    study: Annotated[
        str | None,
        typer.Argument(help="A built-in study (see 'studies') or a study file.", show_default=False),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(
            help="Instead of a study: a program and its arguments, with {batch_size}, {replicate}, {seed}, "
            "{learning_rate}, {folder} or {trial}; it prints a JSON object for each epoch.",
            show_default=False,
        ),
    ] = None,
    records: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="The command writes its JSON objects to this file, with the same placeholders.",
            show_default=False,
        ),
    ] = None,
    data: Data = None,
    weights: Weights = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; default runs/ and the study's name.")
    ] = None,
    batch_sizes: Annotated[
        str | None, typer.Option(help="Instead of the study's, for example 16,64.", show_default=False)
    ] = None,
    replicates: Annotated[
        int | None, typer.Option(help="Instead of the study's.", show_default=False)
    ] = None,
    until_ci: Annotated[
        float | None,
        typer.Option(
            metavar="HALF",
            help="Add replicates to each batch size until its mean val_accuracy is known to so much.",
            show_default=False,
        ),
    ] = None,
    max_replicates: Annotated[
        int | None,
        typer.Option(help="With --until-ci: at most so many; 20 if not given.", show_default=False),
    ] = None,
    learning_rates: Annotated[
        str | None,
        typer.Option(
            help="Each is given to a command as {learning_rate}, such as 0.01,0.1.", show_default=False
        ),
    ] = None,
    limit: Limit = None,
    skip_bad_images: Annotated[
        bool, typer.Option("--skip-bad-images", help="Go on without images that cannot be read; record them.")
    ] = False,
    change: Change = None,
    target: Targets = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Trials at a time; default what trains fastest here.", show_default=False),
    ] = None,
    cache_limit: Annotated[
        str, typer.Option(metavar="SIZE", help="Disk space for features that are computed once.")
    ] = "8GB",
    executor: Annotated[
        str, typer.Option(help="local: processes on this machine; ray: a Ray cluster (docs/clusters.md).")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            help="With ray: HOST:PORT of the head, auto or local; default what is there, else local.",
            show_default=False,
        ),
    ] = None,
    cpus_per_trial: Annotated[
        float | None, typer.Option(help="With ray: CPUs of a trial; default 1.", show_default=False)
    ] = None,
    gpus_per_trial: Annotated[
        float | None, typer.Option(help="With ray: GPUs of a trial; default none.", show_default=False)
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(metavar="TOOL", help="Show the run in mlflow or tensorboard while it goes on."),
    ] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="Of MLflow; default what MLflow is set to.", show_default=False)
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Run a study, or go on with one where it stopped."""
    from batchscope.running.stopping import Stopped, stoppable

    try:
        with stoppable():
            from batchscope import api
            from batchscope.loading import parse_change
            from batchscope.running.showing import usual_watcher

            changes = dict(parse_change(text) for text in change or [])
            if skip_bad_images:
                changes["data.skip_bad_images"] = True
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", BatchscopeWarning)  # of trials, which are listed at the end
                result = api.run(
                    study,
                    command=command,
                    records=records,
                    data=data,
                    weights=weights,
                    out=out,
                    batch_sizes=None
                    if batch_sizes is None
                    else _whole_numbers("--batch-sizes", "batch_sizes", batch_sizes),
                    replicates=replicates,
                    until_ci=until_ci,
                    max_replicates=max_replicates,
                    learning_rates=None
                    if learning_rates is None
                    else _numbers("--learning-rates", "learning_rates", learning_rates),
                    limit=limit,
                    targets=target or (),
                    changes=changes,
                    workers=workers,
                    cache_limit=cache_limit,
                    executor=executor,
                    address=address,
                    cpus_per_trial=cpus_per_trial,
                    gpus_per_trial=gpus_per_trial,
                    track=track or (),
                    tracking_uri=tracking_uri,
                    watcher=usual_watcher(quiet=quiet),
                )
            _conclude(result, quiet)
    except Stopped as stop:
        with suppress(OSError):  # the terminal may be gone
            typer.echo(" ".join([f"Stopped by {stop}.", *getattr(stop, "__notes__", ())]), err=True)
        raise typer.Exit(stop.exit_code) from None


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="DIR")], target: Targets = None
) -> None:
    """Rebuild history, pictures and page of a run from its database."""
    from batchscope import api

    typer.echo(api.load(folder).write_report(targets=target or ()))


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="DIR")],
    to: Annotated[str, typer.Option(metavar="TOOL", help="mlflow, tensorboard, csv, parquet or json.")],
    out: Annotated[
        Path | None,
        typer.Option(help="The file, or TensorBoard's folder; default in DIR/export/.", show_default=False),
    ] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="Of MLflow; default what MLflow is set to.", show_default=False)
    ] = None,
) -> None:
    """Take a run to MLflow or TensorBoard, or write it as one file; again adds what is new."""
    from batchscope import api

    typer.echo(api.load(folder).export(to, out=out, tracking_uri=tracking_uri))


@app.command()
def analyze(
    source: Annotated[
        str, typer.Argument(help="A run's folder, a history (.csv, .parquet), or 'published'.")
    ],
    json: Annotated[
        bool, typer.Option("--json", help="Print the analysis as JSON (see docs/json.md).")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write the page to this file.", show_default=False)
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(help="Write the figures into this folder as PNG and SVG.", show_default=False),
    ] = None,
    margin: Annotated[
        float, typer.Option(help="Differences of the validation metric below it do not matter.")
    ] = 0.005,
    epochs: Annotated[
        str | None,
        typer.Option(help="Epochs of the summary, for example 10,15; the end is always among them."),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="val_accuracy or val_loss; default the first that is there.")
    ] = None,
    target: Targets = None,
    price_per_hour: Annotated[
        float | None,
        typer.Option(help="Of the machine that trains: seconds become prices.", show_default=False),
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Batch sizes whose trials took more are no choice.", show_default=False
        ),
    ] = None,
) -> None:
    """Say what a history shows: verdict, tables, and on demand JSON, page and figures."""
    from batchscope import run_report
    from batchscope.analysis import Settings, to_json
    from batchscope.loading import parse_targets
    from batchscope.running.options import parse_size

    targets = tuple(parse_targets(target or ()))
    chosen = None if epochs is None else tuple(_whole_numbers("--epochs", "epochs", epochs))
    settings = Settings(
        margin=margin,
        summary_epochs=chosen,
        metric=metric,
        targets=targets,
        price_per_hour=price_per_hour,
        memory_limit=None if memory_limit is None else parse_size(memory_limit, "memory_limit"),
    )
    content = run_report.content_of(source, settings)
    if html is not None:
        from batchscope.report.page import write_page

        write_page(content, html)
        typer.echo(f"Page: {html}", err=json)
    if figures is not None:
        from batchscope.report.pictures import write_pictures

        written = write_pictures(content.figures, len(content.analysis.facts.batch_sizes), figures)
        typer.echo(f"Figures: {len(written)} files in {figures}", err=json)
    if json:
        typer.echo(to_json(content.analysis), nl=False)
    elif html is None and figures is None:
        from rich.console import Console

        from batchscope.report.terminal import print_analysis

        print_analysis(content.analysis, Console())


app.command()(probe)


@app.command()
def studies() -> None:
    """List the built-in studies."""
    import textwrap

    from batchscope.studies import built_in_studies, load_study

    for name in built_in_studies():
        typer.echo(name)
        typer.echo(textwrap.indent(textwrap.fill(load_study(name).description.strip(), 96), "    "))


@app.command()
def show(study: Annotated[str, typer.Argument(help="A built-in study or a study file.")]) -> None:
    """Print a study file."""
    from batchscope.studies import load_study, study_text

    load_study(study)
    typer.echo(study_text(study).rstrip())


def _whole_numbers(option: str, key: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        problem = Problem(key, "must be whole numbers separated by commas", repr(text))
        raise StudyError(option, [problem]) from error


def _numbers(option: str, key: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise StudyError(option, [Problem(key, "must be numbers separated by commas", repr(text))]) from error


def _conclude(result: Run, quiet: bool) -> None:
    from batchscope.records import TrialState

    statuses = result.trials
    unfinished = [status for status in statuses if status.state is not TrialState.COMPLETE]
    if not quiet and any(status.epochs for status in statuses):
        from rich.console import Console

        from batchscope.report.terminal import summary_table

        analysis = result.analyze()
        Console().print(summary_table(analysis))
        for note in analysis.notes:
            if note.rule == "probe_cost":
                typer.echo(note.text)
        typer.echo(f"Page: {result.path / 'report' / 'report.html'}")
    for status in unfinished:
        after = f"{status.epochs} epoch{'' if status.epochs == 1 else 's'}"
        typer.echo(f"{status.trial.name} {status.state} after {after}", err=True)
        if status.error:
            typer.echo(f"  {status.error.strip().splitlines()[-1]}", err=True)
    if unfinished:
        raise typer.Exit(1)
