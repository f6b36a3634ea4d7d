"""Command ``speciarl verifier pool``: starts, stops and lists judges on Ray Serve."""

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from speciarl.errors import ConfigError
from speciarl.utils.cli_errors import one_line_errors
from speciarl.verifier_server.config import VerifierConfig
from speciarl.verifier_server.judge_config import judge_config

app = typer.Typer(no_args_is_help=True, help="Run judges on Ray Serve: one URL for any number of replicas.")

Address = Annotated[str, typer.Option(help="Ray cluster: `auto` for the one this machine belongs to, or ray://…")]


@app.command()
def up(
    judge: Annotated[str, typer.Argument(help="An option of recipe/verifier, or a .yaml file, with `pool`.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="KEY=VALUE, e.g. pool.replicas=2.")] = None,
    address: Address = "auto",
    host: Annotated[str, typer.Option(help="Interface Ray Serve listens on. There is no key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port Ray Serve listens on.")] = 8000,
    logs: Annotated[Path, typer.Option(help="Directory of the replicas' logs.")] = Path("logs/judge"),
    open_without_key: Annotated[
        bool, typer.Option("--open-without-key", help="Listen where others may reach, and use, the judge.")
    ] = False,
) -> None:
    """Start a judge, or replace the one of the same name, and print its URL."""
    from speciarl.cpu import environment, stack
    from speciarl.verifier_server.pool import serve_app

    with one_line_errors():
        config = pooled_judge(judge, overrides or ())
        options = serve_app.ServeOptions(host, port, open_without_key)
        _connect(address)
        env = environment.variables() if stack.active() else {}
        typer.echo(serve_app.deploy(config, logs, env, options) + "/v1")


@app.command()
def down(
    name: Annotated[str, typer.Argument(help="Name of the judge.")],
    address: Address = "auto",
) -> None:
    """Stop a judge and its replicas."""
    from speciarl.verifier_server.pool import serve_app

    with one_line_errors():
        _connect(address)
        if not serve_app.remove(name):
            known = ", ".join(one.name for one in serve_app.status()) or "none"
            raise ConfigError(f"there is no judge {name!r} on this cluster; running: {known}")


@app.command()
def status(address: Address = "auto") -> None:
    """Show what runs on Ray Serve."""
    from speciarl.verifier_server.pool import serve_app

    with one_line_errors():
        _connect(address)
        table = Table("name", "status", "replicas", "problem")
        for one in serve_app.status():
            replicas = ", ".join(f"{count} {state.lower()}" for state, count in one.replicas.items())
            table.add_row(one.name, one.status, replicas, one.message)
        Console().print(table)


def pooled_judge(source: str, overrides: Sequence[str] = ()) -> VerifierConfig:
    """Configuration of a judge with a pool, from a recipe option or a YAML file; raises ConfigError in one line."""
    judge = judge_config(source, overrides)
    if judge.pool is None:
        raise ConfigError(f"{source}: judge {judge.name!r} has no `pool`, so there is nothing to start")
    return judge


def _connect(address: str) -> None:
    import ray

    host, _, port = address.rpartition(":")
    try:
        if host and port.isdigit() and "/" not in host:  # fails at once, where Ray itself would retry for minutes
            socket.create_connection((host, int(port)), timeout=5).close()
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (OSError, RuntimeError, ValueError) as error:
        cause = " ".join(str(error).split())
        remedy = "start it with `ray start --head`"
        raise ConfigError(f"Ray cannot be reached at {address!r} ({cause}); {remedy}") from error
