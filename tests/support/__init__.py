"""What tests share, imported by its full name: `from tests.support.house import House`."""

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
