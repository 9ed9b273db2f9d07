"""`doctor`: say what is wrong with a set-up, and what to do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from es_imgsearch.cli.options import examples, json_option, open_store, with_settings_options
from es_imgsearch.cli.printing.lines import print_json, print_line
from es_imgsearch.errors import EXIT_DIFFERENCE, EXIT_DONE, counted

if TYPE_CHECKING:
    from es_imgsearch.settings import Settings


@click.command(epilog=examples("doctor", "doctor --index products --json"))
@with_settings_options
@json_option
def doctor(settings: Settings, as_json: bool) -> None:
    """Say what is wrong with cluster, index and this machine, and what to do.

    Changes nothing; ends with 1 if anything was found.
    """
    from es_imgsearch.manage.doctor.diagnosis import CHECKS, diagnose
    from es_imgsearch.manage.doctor.setup import SetUp

    found = diagnose(SetUp(open_store(settings), settings))
    if as_json:
        print_json(found.to_dict())
    else:
        for each in found.findings:
            print_line(f"- {each.text}")
            if each.command:
                print_line(f"      {each.command}")
        for name, why in found.unchecked.items():
            print_line(f"({name} could not be checked: {why})")
        if found.roles:
            print_line(f"This key or user has the rights of: {', '.join(found.roles)}.")
        if not found.findings:
            looked = len(CHECKS) - len(found.unchecked)
            print_line(f"Nothing is wrong, by {counted(looked, 'check')}.")
    sys.exit(EXIT_DIFFERENCE if found.findings else EXIT_DONE)
