"""Random programs of the whole table of operations; `python tests/fuzz.py` tries any number."""

import fuzz
import pytest
from short_methods import slow_beside

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("seed", slow_beside([3, 5, 8], 5, 8))
def test_a_random_program_is_what_it_is_frozen_by_hand(seed):
    assert fuzz.check(seed)
