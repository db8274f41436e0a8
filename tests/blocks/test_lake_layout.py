"""The layout of large appends: memory does not grow with the rows."""

import subprocess
import sys
from pathlib import Path

import pytest

LAID_OUT = """
import resource, sys
from pathlib import Path
import numpy as np
import pyarrow as pa
from blocks.lake import layout

layout.MAX_SORT_BYTES = 20 << 20
words = pa.array(["some text of a row " * 8] * 50_000)
numbers = np.random.default_rng(1)

def tables():
    for _ in range(int(sys.argv[2])):  # all of one stripe, whose rows are parted twice
        yield pa.table({"word": words, "_bucket": pa.array(numbers.integers(500, 590, 50_000).astype(np.int32))})

spill = Path(sys.argv[1])
spill.mkdir()
files = layout.write_sorted_files(tables(), lambda name, data, sha256: None, spill)
assert sum(file.rows for file in files) == 50_000 * int(sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows_of_a_stripe(tmp_path: Path) -> None:
    """Stripes of 100 and of 700 MB; memory-mapped files count as memory, too."""

    def peak(tables: int) -> int:
        command = [sys.executable, "-c", LAID_OUT, str(tmp_path / f"spill-{tables}"), str(tables)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    few, many = peak(13), peak(90)
    assert many < few + 150, f"{few} MB at 100 MB of rows, {many} MB at 700"
