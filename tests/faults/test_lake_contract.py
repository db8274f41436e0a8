"""The as-of contract under everything at once: appends, compactions, collections, kills and readers, drawn at random.

A second process does the same to the same lake and is killed at any moment. Whatever happens, a read that was
fixed once returns the same rows ever after, to the byte, and every snapshot is whole.
"""

import pytest

from tests.fixtures.live_lake import live


@pytest.mark.slow
def test_every_read_repeats_whatever_happens(tmp_path):
    """A thousand, and more, by `make soak-lake`."""
    done = live(tmp_path / "lake", seed=3, operations=100)
    assert min(done["appends"], done["compactions"], done["collections"], done["kills"]) >= 1
    assert done["reads"] >= 30
