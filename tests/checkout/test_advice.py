"""Whatever a message advises exists, acts on the same index, and has a test that carries it out."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.advice import advising_messages

TESTS = Path(__file__).resolve().parent.parent
MESSAGES = advising_messages()

# What the advice of each place was carried out by.  A message with advice needs a row: write a test
# that produces it and does what it says, and name that here.
E2E = "e2e/test_advice.py::"
WRONG_USE = "checkout/test_advice.py::test_what_is_advised_exists"  # the options alone are advised
INSTALL = "checkout/test_advice.py::test_what_is_to_be_installed_can_be"
TESTED = {
    "cli.codes:codes": WRONG_USE,
    "cli.describe:describe": WRONG_USE,
    "cli.options:parse_box": WRONG_USE,
    "cli.output:left_out_line": "e2e/test_left_out.py::test_commands_follow_links",
    "cli.reindex:_print_outcome": "e2e/test_reindex.py::test_originals_that_are_not_here_stop_the_switch",
    "cli.reindex:reindex": WRONG_USE,
    "cli.search:_parse_weights": WRONG_USE,
    "cli.search:search": WRONG_USE,
    "cli.serve:serve": INSTALL,
    "cli.status:_print_generations": E2E + "test_status_names_what_to_do_with_generations",
    "cli.status:_tuning_line": E2E + "test_status_names_what_to_run",
    "cli.status:status": E2E + "test_status_names_what_to_run",
    "cli.tags:train_command": "e2e/test_tags.py::*",
    "cli.tags:vocabulary_command": "e2e/test_tags.py::*",
    "cli.transfer:_renamed": WRONG_USE,
    "cli.tune:_verdict": WRONG_USE,
    "cli.tune:tune": WRONG_USE,
    "cli.watch:watch": WRONG_USE,
    "codes.apply:apply_codes": E2E + "test_an_index_without_codes",
    "codes.coder:Coder.from_document": "e2e/test_codes.py::test_a_coder_that_is_lost_or_another_is_refused_and_trained_anew",
    "codes.fitting:fit_sign": WRONG_USE,
    "codes.storage:read_coder": "e2e/test_codes.py::test_a_coder_that_is_lost_or_another_is_refused_and_trained_anew",
    "describe.ocr:TextInImage.missing": INSTALL,
    "describe.ocr:_only": INSTALL,
    "duplicates.corners:_opencv": INSTALL,
    "elastic.error_mapping:_api_error": E2E + "test_an_index_that_is_missing",
    "elastic.error_mapping:_no_answer": E2E + "test_a_server_elsewhere",
    "elastic.error_mapping:_not_elasticsearch": E2E + "test_a_server_elsewhere",
    "elastic.error_mapping:_tls_error": E2E + "test_a_server_elsewhere",
}


def found_commands(text: str) -> list[str]:
    """Return the command lines in a text, up to the end of their quotation or sentence."""
    return re.findall(r"es-imgsearch ([a-z][^`;,.]*)", text)
