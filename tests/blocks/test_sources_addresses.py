"""Addresses of sources: a password in a parameter is refused, and the message does not repeat it."""

import pytest

from blocks.common.errors import Rejected
from blocks.sources.secret_addresses import resolve_address


@pytest.mark.parametrize(
    "source",
    [
        "rows.csv",
        "in/*.parquet",
        "s3://bucket/in/",
        "sqlite:////data/crm.db",
        "postgresql://reader@host/crm",
        "postgresql://host/crm?sslmode=require",
        "lake:churn",
        "no://address at all://",
    ],
)
def test_an_address_without_a_password_is_itself(source: str) -> None:
    assert resolve_address(source) == source


@pytest.mark.parametrize(
    "source",
    [
        "postgresql://reader:hunter2@host/crm",
        "postgresql+psycopg://:hunter2@host/crm",
        "postgresql://host/crm?user=reader&password=hunter2",
        "snowflake://reader@account/crm?private_key_token=hunter2",
        "mysql://reader@host/crm?sslPassword=hunter2",
    ],
)
def test_a_password_is_refused_and_not_repeated(source: str) -> None:
    with pytest.raises(Rejected, match=r"contains a password.*Secret block.*block:NAME") as refused:
        resolve_address(source)
    assert "hunter2" not in str(refused.value)
    assert "host/crm" in str(refused.value) or "account/crm" in str(refused.value)
