"""The world finds each fault when its mending is taken back, and nothing with the mending."""

from __future__ import annotations

import re

import pytest

from tests.simulation.mutations import MUTATIONS, Mutation
from tests.simulation.patches import Patches
from tests.simulation.world import PromiseBroken, run_seed

# Another course of the product may take the fault to another seed.
_SEEDS = 60


def _problems(mutation: Mutation, seed: int) -> str:
    """Return what the world says of the product with the fault."""
    patches = Patches()
    mutation.apply(patches)
    try:
        run_seed(seed, emphasis=mutation.emphasis)
    except PromiseBroken as error:
        return str(error).partition("\n\nTrace:")[0]
    finally:
        patches.undo()
    return ""


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_a_mending_taken_back_is_found(mutation: Mutation) -> None:
    seeds = range(mutation.seed, mutation.seed + _SEEDS)
    found = next(
        (each for each in seeds if re.search(mutation.symptom, _problems(mutation, each))), None
    )
    assert found is not None, f"no world finds fault {mutation.fault} from seed {mutation.seed} on"
    run_seed(found, emphasis=mutation.emphasis)
