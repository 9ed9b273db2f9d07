"""Write the letters that are compared alike into mappings/common.json, or check them (`--check`).

    pip install opencc-python-reimplemented==0.1.7     (nothing else needs it)
    python dev/letters.py [--check]

- Traditional Chinese characters become simplified ones, one by one, and Japanese forms of
  characters become those of the same character in Chinese: OpenCC's tables TSCharacters and
  JPVariants (https://github.com/BYVoid/OpenCC, Apache License 2.0), as the package
  opencc-python-reimplemented has them.  A Japanese form that is another character in Chinese (芸)
  stays, as do characters outside of the Basic Multilingual Plane, which nobody types.
- Katakana, of full or half width, becomes hiragana: the table of Unicode.

The table is the character filter `letters`, on one line, since the server has no file of ours.  It
is one text of 3,343 rules with commas between: as a list it made each new index take 0.32 s instead
of 0.07, because Elasticsearch interns each member of a list again for each setting it checks.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
import unicodedata
from pathlib import Path

COMMON = Path(__file__).resolve().parent.parent / "mappings" / "common.json"
_LINE = re.compile(r'("letters": \{"type": "mapping", "mappings": )"[^"]*"')


def opencc_table(name: str) -> dict[str, list[str]]:
    """Read a table of OpenCC: a character, and those it may become, the likeliest first."""
    package = importlib.util.find_spec("opencc")
    if package is None or package.origin is None:
        sys.exit("Install it first: pip install opencc-python-reimplemented==0.1.7")
    file = Path(package.origin).parent / "dictionary" / f"{name}.txt"
    rows = (line.split("\t") for line in file.read_text("utf-8").splitlines() if line)
    return {one: others.split() for one, others in rows}


def is_in_chinese_use(character: str) -> bool:
    """Check for a character of GB 2312, the standard of simplified Chinese."""
    try:
        character.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return True


def han() -> dict[str, str]:
    simplified = {one: others[0] for one, others in opencc_table("TSCharacters").items()}
    folded = dict(simplified)
    for traditional, japanese in opencc_table("JPVariants").items():
        for each in japanese:
            if each not in folded and not is_in_chinese_use(each):
                folded[each] = simplified.get(traditional, traditional)
    return folded


def kana() -> dict[str, str]:
    folded = {chr(n): chr(n - 0x60) for n in (*range(0x30A1, 0x30F7), 0x30FD, 0x30FE)}
    for number in range(0xFF66, 0xFF9E):
        for mark in ("", "\uff9e", "\uff9f"):
            full = unicodedata.normalize("NFKC", chr(number) + mark)
            if len(full) == 1:
                folded[chr(number) + mark] = folded.get(full, full)
    return folded


def rules() -> list[str]:
    """List the rules `from=>to`, sorted; no letter is on both sides."""
    folded = {
        one: other
        for one, other in {**han(), **kana()}.items()
        if one != other and max(one + other) <= "\uffff"
    }
    for one in folded:
        while folded[one] in folded:
            folded[one] = folded[folded[one]]
    return [f"{one}=>{other}" for one, other in sorted(folded.items()) if one != other]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write or check the letters compared alike.")
    parser.add_argument("--check", action="store_true", help="only check that they are current")
    before = COMMON.read_text("utf-8")
    table = json.dumps(",".join(rules()), ensure_ascii=False)
    after = _LINE.sub(lambda match: match[1] + table, before)
    if not parser.parse_args().check:
        COMMON.write_text(after, "utf-8")
    elif after != before:
        sys.exit("mappings/common.json is not current: run python dev/letters.py")


if __name__ == "__main__":
    main()
