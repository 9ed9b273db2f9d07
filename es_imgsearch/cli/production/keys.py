"""`keys`: make, list and revoke API keys with the rights of a role."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from es_imgsearch.cli.options import (
    Choice,
    Group,
    examples,
    json_option,
    open_store,
    with_settings_options,
)
from es_imgsearch.cli.printing.lines import print_json, print_line
from es_imgsearch.errors import escaped

if TYPE_CHECKING:
    from es_imgsearch.settings import Settings

_ROLES = ("read", "watch", "admin", "snapshot", "restore", "kibana-import")


@click.group(cls=Group)
def keys() -> None:
    """Make, list and revoke API keys with exactly the rights of a role.

    Needs a user who may make keys (manage_api_key), as user:password@ in ES_URL.
    """


@keys.command(
    epilog=examples(
        "keys create --role watch --expires 1y",
        "keys create --role read --expires 2027-12-31 --name gallery > gallery.key",
        "keys create --role admin --expires 12h --index products",
    )
)
@with_settings_options
@click.option("--role", type=Choice(_ROLES), required=True, help="What the key is for.")
@click.option("--expires", metavar="T", required=True, help="How long it opens anything: a number"
              " with m, h, d, w or y, a last day, or never.")  # fmt: skip
@click.option("--name", metavar="N", help="Name of the key.  [default: INDEX-ROLE-RANDOM]")
@json_option
def create(settings: Settings, role: str, expires: str, name: str | None, as_json: bool) -> None:
    """Make a key for this index and print it, once, on standard output.

    It may do what its role needs on this index and its companions, and nothing else.
    """
    from es_imgsearch.manage.production.keys import create_key, key_document, parse_lifetime

    lifetime_seconds = parse_lifetime(expires, datetime.now(UTC))
    connection = open_store(settings).connection
    key = create_key(connection, role, lifetime_seconds, name)
    if as_json:
        print_json({**key_document(key.info), "encoded": key.encoded})
    else:
        print_line(key.encoded)
    ends = f"ends at {key.info.expires_at}" if key.info.expires_at else "never ends"
    click.echo(
        f"Made the key {key.info.name!r} of role {role} for index {settings.index!r}; it {ends}."
        " It is shown only this once: set ES_API_KEY to it where commands of this role run.",
        err=True,
    )


@keys.command("list", epilog=examples("keys list", "keys list --revoked --json"))
@with_settings_options
@click.option("--revoked", is_flag=True, help="List revoked keys, too.")
@json_option
def list_command(settings: Settings, revoked: bool, as_json: bool) -> None:
    """List the keys of this index: name, role, state, end and id; never a secret."""
    from es_imgsearch.manage.production.keys import key_document, list_keys

    found = list_keys(open_store(settings).connection, revoked=revoked)
    if as_json:
        print_json([key_document(each) for each in found])
        return
    for each in found:
        ends = f"until {each.expires_at}" if each.expires_at else "never ends"
        print_line(f"{escaped(each.name)}  {each.role}  {each.state}, {ends}  {each.key_id}")
    if not found:
        click.echo(f"No keys of index {settings.index!r} were made by `keys create`.", err=True)


@keys.command(epilog=examples("keys revoke gallery", "keys revoke VuaCfGcBCdbkQm-e5aOx"))
@with_settings_options
@click.argument("name", metavar="NAME|ID")
def revoke(settings: Settings, name: str) -> None:
    """Revoke a key of this index: it opens nothing from now on."""
    from es_imgsearch.manage.production.keys import revoke_key

    key = revoke_key(open_store(settings).connection, name)
    click.echo(f"Revoked the key {key.name!r} of role {key.role} ({key.key_id}).", err=True)
