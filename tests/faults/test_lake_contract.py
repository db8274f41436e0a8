"""The as-of contract under random appends, compactions, garbage collections, kills and readers at the same time.

A second process does the same to the same lake and is killed at any moment. In all cases a fixed read always returns
the same rows, byte by byte, and every snapshot is complete.
"""

import pytest

from tests.fixtures.live_lake import live


@pytest.mark.slow
def test_every_read_repeats_whatever_happens(tmp_path):
    """`make soak-lake` runs a thousand and more."""
    done = live(tmp_path / "lake", seed=3, operations=100)
    assert min(done["appends"], done["compactions"], done["collections"], done["kills"]) >= 1
    assert done["reads"] >= 30
