"""``speciarl verifier``: commands to run a verifier service, show its metrics and query it."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from speciarl.utils.cli_errors import one_line_errors
from speciarl.verifier_server import audit
from speciarl.verifier_server.pool import cli as pool_cli
from speciarl.verifier_server.store import cli as store_cli

TEACHING = """The verifier as a service: judges behind HTTP, shared by runs and by machines.

\b
  speciarl verifier serve --verifier taxonomy        a judge from recipe/verifier, on 127.0.0.1:8100
  speciarl verifier serve --config service.yaml      several judges, a key, a verdict log
  speciarl verifier judge URL --truth lion --prediction "big cat"
  speciarl verifier top URL                          what it does, live
  speciarl verifier audit NAME                       is this judge fit? golden pairs and attempts at gaming it
  speciarl verifier pool up NAME                     replicas of a judge on Ray Serve, behind one URL
  speciarl verifier store stats FILE                 what a verdict store holds; export, import, prune

Training uses it with recipe/verifier=service. See docs/verifier_service.md.
"""

SERVE = """Serve judges until told to stop (Ctrl-C or SIGTERM).

Judges come from a file (--config), from options of recipe/verifier (--verifier, may be repeated), or both; KEY=VALUE at
the end changes any setting of either:

\b
  speciarl verifier serve --verifier taxonomy port=8200
  speciarl verifier serve --verifier vllm judges.vllm.model=NAME 'judges.vllm.endpoints=[http://HOST:8000/v1]'
  speciarl verifier serve --verifier laptop          starts the judge's own vLLM replicas on Ray
  speciarl verifier serve --config service.yaml host=0.0.0.0 key_file=service.key
  speciarl verifier serve --verifier laptop --store redis://HOST:6379/0

\b
A small service.yaml:
  judges:
    main: {kind: vllm, model: NAME, endpoints: [http://HOST:8000/v1]}
    gold: {kind: taxonomy, taxonomy: data/emoji/taxonomy.json}
  verdict_log: {directory: logs/verdicts}

It listens on the loopback interface; another host needs key_file. /ready answers 200 when all judges passed their
start-up probe; if one does not, the service ends with exit code 2 and one line that says why. OpenAPI is at /docs.
Verdicts are kept in checkpoints/verdicts.sqlite unless --store says otherwise.
"""

PIPE_COLUMNS = 160
"""Width of a table that no terminal shows."""

app = typer.Typer(help=TEACHING, no_args_is_help=True, add_completion=False, rich_markup_mode=None)

app.command("audit")(audit.command)
app.add_typer(pool_cli.app, name="pool")
app.add_typer(store_cli.app, name="store")

KeyFile = Annotated[str | None, typer.Option("--key-file", help="File with the service's key.")]


@app.callback(help=TEACHING)
def _root() -> None:
    """Options that stand before a command; there are none."""


@app.command(help=SERVE)
def serve(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that win.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="YAML file with the service's settings.")] = None,
    verifier: Annotated[list[str] | None, typer.Option("--verifier", help="Option of recipe/verifier.")] = None,
    store: Annotated[
        str | None, typer.Option("--store", help="Where verdicts are kept: path of a file, Redis URL, or none.")
    ] = None,
    log_format: Annotated[str, typer.Option("--log-format", help="text or json (one object per line).")] = "text",
    log_level: Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")] = "info",
) -> None:
    """See SERVE."""
    if log_format not in ("text", "json"):
        raise typer.BadParameter(f"{log_format!r} is neither text nor json", param_hint="--log-format")
    if log_level not in ("debug", "info", "warning", "error"):
        raise typer.BadParameter(f"{log_level!r} is none of debug, info, warning, error", param_hint="--log-level")
    with one_line_errors():
        from speciarl.verifier_server.service import config_source, server

        settings = config_source.load_settings(config, verifier or [], overrides or [], store)
        server.set_up_logging("json" if log_format == "json" else "text", log_level)
        with contextlib.suppress(KeyboardInterrupt):  # the server has shut down in order by now
            server.serve(settings)


@app.command()
def top(
    url: Annotated[str, typer.Argument(help="The service, e.g. http://127.0.0.1:8100")],
    once: Annotated[bool, typer.Option("--once", help="Print once and leave.")] = False,
    interval_s: Annotated[float, typer.Option("--interval", min=0.2, help="Seconds between looks.")] = 2.0,
    key_file: KeyFile = None,
) -> None:
    """Show live what a service does: its metrics, and by how much each grows in a second."""
    import time

    from rich.console import Console
    from rich.live import Live

    from speciarl.utils.credentials import public_url
    from speciarl.verifier_server.console import ServiceError, Snapshot, metrics_text, view

    def look() -> Snapshot:
        try:
            return Snapshot.parse(metrics_text(url, key_file), time.monotonic())
        except ValueError as error:
            raise ServiceError(f"{public_url(url)} shows no metrics; is it a verifier service?") from error

    with one_line_errors(), contextlib.suppress(KeyboardInterrupt):
        now = look()
        if once:
            console = Console()
            console.width = console.width if console.is_terminal else PIPE_COLUMNS
            console.print(view(now, None))
            return
        with Live(view(now, None), auto_refresh=False) as live:
            while True:
                time.sleep(interval_s)
                before, now = now, look()
                live.update(view(now, before), refresh=True)


@app.command()
def judge(
    url: Annotated[str, typer.Argument(help="The service, e.g. http://127.0.0.1:8100")],
    truth: Annotated[str, typer.Option("--truth", help="What is in the image.")],
    prediction: Annotated[str, typer.Option("--prediction", help="What the model said.")],
    judge_name: Annotated[str | None, typer.Option("--judge", help="Name of the judge.")] = None,
    key_file: KeyFile = None,
) -> None:
    """Judge one pair. The exit code is 1 when it has no verdict."""
    from speciarl.verdict import Unscorable
    from speciarl.verifier_server.console import judge_one

    with one_line_errors():
        name, judgement = judge_one(url, key_file, judge_name, truth, prediction)
    if isinstance(judgement, Unscorable):
        typer.echo(f"unscorable ({judgement.reason}): {judgement.detail}")
        raise typer.Exit(1)
    margin = "" if judgement.margin is None else f", margin {judgement.margin:.2f}"
    typer.echo(f"{judgement.category.label} ({judgement.source} from {name}{margin})")
