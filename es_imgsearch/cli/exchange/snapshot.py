"""`snapshot`: save an index in a repository of Elasticsearch, and restore it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from es_imgsearch.cli.options import (
    Group,
    examples,
    json_option,
    open_store,
    with_settings_options,
)
from es_imgsearch.cli.printing.lines import print_json, print_line
from es_imgsearch.errors import counted

if TYPE_CHECKING:
    from es_imgsearch.manage.transfer.snapshots import Snapshots
    from es_imgsearch.settings import Settings

_repository_option = click.option(
    "--repository",
    default="es-imgsearch",
    show_default=True,
    metavar="NAME",
    help="Repository of Elasticsearch that holds the snapshots.",
)


def _snapshots(settings: Settings, repository: str) -> Snapshots:
    from es_imgsearch.manage.transfer.snapshots import Snapshots

    return Snapshots(open_store(settings), repository)


@click.group(cls=Group)
def snapshot() -> None:
    """Save the index in a repository of snapshots, and restore it.

    A snapshot holds what `drop` would delete: vectors, fields, failures, tags that people gave,
    what was learned, the log of searches. The pictures' files are not in it.
    """


@snapshot.command(
    epilog=examples(
        "snapshot repository --location /mnt/backups",
        "snapshot repository --repository nightly --location /mnt/backups/nightly",
    )
)
@with_settings_options
@_repository_option
@click.option("--location", required=True, type=click.Path(path_type=Path), metavar="DIR",
              help="A folder that all nodes see, in path.repo of each.")  # fmt: skip
def repository(settings: Settings, repository: str, location: Path) -> None:
    """Register a folder of the servers as repository.

    Repositories of other kinds, such as S3, are registered with Elasticsearch or in Kibana.
    """
    _snapshots(settings, repository).register(str(location))
    click.echo(f"Repository {repository!r} keeps snapshots in {str(location)!r}.", err=True)


@snapshot.command(epilog=examples("snapshot create", "snapshot create before-upgrade"))
@with_settings_options
@_repository_option
@click.argument("name", required=False)
def create(settings: Settings, repository: str, name: str | None) -> None:
    """Take a snapshot, also while pictures are being indexed; prints its name.

    Only what changed since the last snapshot is copied. Without NAME it is the index and the time.
    """
    made = _snapshots(settings, repository).create(name)
    print_line(made.name)
    indices = counted(len(made.indices), "index", "indices")
    click.echo(f"Saved {indices} of {settings.index!r} in {repository!r}.", err=True)


@snapshot.command("list", epilog=examples("snapshot list", "snapshot list --json"))
@with_settings_options
@_repository_option
@json_option
def list_command(settings: Settings, repository: str, as_json: bool) -> None:
    """List the snapshots of the index, oldest first."""
    from dataclasses import asdict

    found = _snapshots(settings, repository).all()
    if as_json:
        print_json([asdict(each) for each in found])
        return
    for each in found:
        indices = counted(len(each.indices), "index", "indices")
        print_line(f"{each.name}  {each.started}  {each.state}  {indices}, {each.version}")
    if not found:
        click.echo(f"No snapshots of {settings.index!r} in {repository!r}.", err=True)


@snapshot.command(epilog=examples("snapshot restore", "snapshot restore before-upgrade"))
@with_settings_options
@_repository_option
@click.argument("name", required=False)
def restore(settings: Settings, repository: str, name: str | None) -> None:
    """Restore the index from a snapshot into a cluster that lacks it.

    Without NAME from the newest. `watch` and `sync` then index what has changed since.
    """
    restored = _snapshots(settings, repository).restore(name)
    indices = counted(len(restored.indices), "index", "indices")
    click.echo(
        f"Restored {settings.index!r} from snapshot {restored.name!r}: {indices}. To index what has"
        f" changed since: `es-imgsearch sync --index {settings.index} DIR...`.",
        err=True,
    )
