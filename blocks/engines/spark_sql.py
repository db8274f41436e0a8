"""Translates SQL from DuckDB's dialect to Spark's by sqlglot; SQL without an equivalent is rejected, not guessed."""

from typing import TYPE_CHECKING, cast

from blocks.common.errors import Rejected

if TYPE_CHECKING:
    from sqlglot import exp

_INFINITY = "CAST('Infinity' AS DOUBLE)"
_BUCKET_DIGITS = "substr(md5(CAST(CAST(a0 AS STRING) AS BINARY)), a1, 8)"
_FUNCTIONS: dict[str, tuple[int, str]] = {
    "bucket_of": (2, f"CAST(CAST(conv({_BUCKET_DIGITS}, 16, 10) AS BIGINT) % 10000 AS INT)"),
    "isfinite": (1, f"(abs(a0) < {_INFINITY})"),
    "is_inf": (1, f"(abs(a0) = {_INFINITY})"),
    "epoch_us": (1, "unix_micros(CAST(a0 AS TIMESTAMP_LTZ))"),
    "strlen": (1, "octet_length(a0)"),
    "regexp_full_match": (2, r"(a0 RLIKE concat('^(?:', a1, ')\\z'))"),
    "percentile_cont": (2, "percentile(a0, a1)"),
    "percentile_disc": (2, "percentile_disc(a1) WITHIN GROUP (ORDER BY a0)"),
}  # fmt: skip
"""By sqlglot's or DuckDB's function name: the number of arguments, and Spark's SQL (a0, a1: the arguments)."""

_TYPES = {"INT128": "DECIMAL(38, 0)", "UINT128": "DECIMAL(38, 0)", "TIMESTAMPTZ": "TIMESTAMP_LTZ"}
"""Spark's type by sqlglot's name, for types that sqlglot translates wrongly."""

_ROUNDED_CAST = "CASE WHEN typeof(a0) IN ('float', 'double') THEN {1}(rint(try_cast(a0 AS DOUBLE)) AS {0}) ELSE a1 END"
"""DuckDB rounds a double that is cast to an integer, Spark truncates it; Spark evaluates `typeof` in planning."""


def to_spark_sql(sql: str) -> str:
    """Translate one query from DuckDB's dialect to Spark's.

    Raises:
        Rejected: the query cannot be parsed, or uses a feature without an equivalent in Spark.
    """
    import sqlglot
    from sqlglot import ErrorLevel, errors, exp

    try:
        trees = [tree for tree in sqlglot.parse(sql, read="duckdb") if tree is not None]
        if len(trees) != 1 or not isinstance(trees[0], exp.Query):
            raise Rejected(f"this is not a single query that begins with SELECT or WITH: {sql[:300]}")
        _reject_unsupported(trees[0])
        for node in reversed(list(trees[0].dfs())):  # leaves first: a replacement contains its replaced children
            replacement = _rewrite_node(node)
            if replacement is not None:
                node.replace(replacement)
        translated: str = trees[0].sql(dialect="spark", unsupported_level=ErrorLevel.RAISE)
        return translated
    except (errors.SqlglotError, RecursionError) as cause:
        raise Rejected(f"{' '.join(str(cause).split())[:400]} In: {sql[:300]}") from cause


def _reject_unsupported(tree: "exp.Expr") -> None:
    """Raise Rejected for SQL that Spark would silently interpret differently."""
    from sqlglot import exp

    for join in tree.find_all(exp.Join):
        if join.method and join.method.upper() != "NATURAL":
            raise Rejected(f"Spark has no {join.method.upper()} JOIN. Write it with a window function.")
    if tree.find(exp.TableSample):
        raise Rejected("A random sample has other rows on each engine. Filter on bucket_of instead.")


def _rewrite_node(node: "exp.Expr") -> "exp.Expr | None":
    """Return what stands for the node on Spark, or None when sqlglot writes it well."""
    from sqlglot import exp

    if isinstance(node, exp.DataType):
        instead = _TYPES.get(node.this.value)
        return exp.DataType.build(instead, dialect="spark") if instead else None
    if isinstance(node, exp.Cast):
        to = node.to.sql(dialect="spark")
        word = "try_cast" if isinstance(node, exp.TryCast) else "cast"
        whole = to in ("TINYINT", "SMALLINT", "INT", "BIGINT") and not isinstance(node.this, exp.Literal)
        return _fill_pattern(_ROUNDED_CAST.format(to, word), node.this, node) if whole else None
    if not isinstance(node, exp.Func):
        return None
    name = (node.name if isinstance(node, exp.Anonymous) else node.sql_name()).lower()
    if name not in _FUNCTIONS:
        return None
    given = node.expressions if isinstance(node, exp.Anonymous) else [each for each in node.args.values() if each]
    count, pattern = _FUNCTIONS[name]
    if len(given) != count:
        raise Rejected(f"{name} takes {count} arguments here, not {len(given)}")
    return _fill_pattern(pattern, *given)


def _fill_pattern(pattern: str, *given: "exp.Expr") -> "exp.Expr":
    """Return Spark's words with the arguments in their places."""
    import sqlglot
    from sqlglot import exp

    tree = sqlglot.parse_one(f"SELECT {pattern}", read="spark").expressions[0]
    places = {f"a{place}": each for place, each in enumerate(given)}
    for column in list(tree.find_all(exp.Column)):
        column.replace(places[column.name].copy())
    return cast("exp.Expr", tree)
