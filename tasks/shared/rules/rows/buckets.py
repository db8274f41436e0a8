"""The stable hash of an entity: which bucket of 10,000 it falls in, the same on every engine and version.

An entity's key is written as text (an integer as its decimal digits), its UTF-8 bytes are digested with MD5,
and the digest is read as hexadecimal: digits 1 to 8 decide the tier, digits 9 to 16 the holdout. MD5 because
every engine has it; nothing here is a secret. `docs/buckets.md` holds test vectors and the SQL.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.shared.rules.refusal import Refusal

BUCKETS = 10_000
"""How many buckets there are, for tiers and for the holdout: 0 to 9,999."""

BUCKET_COLUMN = "_bucket"
"""Name of the int32 column that carries the tier bucket; the lake lays out its files by it."""

EntityKeys: TypeAlias = pa.Array | pa.ChunkedArray
"""Entity keys: integers or text, none null."""


def tier_buckets(keys: EntityKeys) -> npt.NDArray[np.int32]:
    """Return the tier bucket of each key, int32 of shape (keys,), 0 to 9,999; `Refusal` as for `key_text`."""
    return _buckets(keys, first_digit=1)


def holdout_buckets(keys: EntityKeys) -> npt.NDArray[np.int32]:
    """Return the holdout bucket of each key: as `tier_buckets`, but of digits that the tiers do not use."""
    return _buckets(keys, first_digit=9)


def key_text(keys: EntityKeys) -> EntityKeys:
    """Return the keys as the text that is digested.

    Raises:
        Refusal: a key is null, or the keys are neither integers nor text (1 and 1.0 would be two entities).
    """
    kind = keys.type.value_type if pa.types.is_dictionary(keys.type) else keys.type
    if keys.null_count:
        raise Refusal(f"{keys.null_count} of {len(keys)} entity keys are null", remedy="Quarantine those rows.")
    if not _is_text(kind) and not pa.types.is_integer(kind):
        raise Refusal("an entity key has to be an integer or text", value=str(kind), remedy="Write the key as text.")
    return keys.cast(pa.large_string())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _buckets(keys: EntityKeys, *, first_digit: int) -> npt.NDArray[np.int32]:
    import duckdb  # imported here: it takes 0.1 s, and most importers never hash

    text = pa.table({"key": key_text(keys)})
    digits = f"'0x' || substr(md5(key), {first_digit}, 8)"
    query = f"SELECT CAST(CAST({digits} AS BIGINT) % {BUCKETS} AS INTEGER) AS bucket FROM text"  # noqa: S608
    with duckdb.connect() as engine:
        engine.execute("SET preserve_insertion_order = true")
        engine.register("text", text)
        found: npt.NDArray[np.int32] = engine.execute(query).fetchnumpy()["bucket"]
    if len(found) != len(keys) or np.ma.is_masked(found):
        raise Refusal(f"{len(keys)} keys gave {len(found)} buckets", remedy="This is a defect of Ratchet: report it.")
    return np.ascontiguousarray(found, dtype=np.int32)
