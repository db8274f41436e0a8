"""Which data sets and reads a round of maintenance looks at, and what it says of them."""

from tasks.cleanup.rules.maintenance.maintenance import (
    MAX_DIGEST_ROWS,
    SAMPLED_READS,
    DatasetMaintenance,
    StorageStats,
    digest_bucket_limit,
    maintenance_markdown,
    model_dataset_names,
    sampled_reads,
)
from tests.fixtures.join_cases import joined_spec


def test_a_model_s_data_sets_are_its_tables_quarantines_predictions_and_published_features():
    data = joined_spec().data.model_copy(update={"publish": "parcels-features"})
    there = ["parcels", "parcels-quarantine", "weather-quarantine", "parcels-predictions", "parcels-features", "churn"]
    assert model_dataset_names(data, there) == sorted(there[:-1])
    assert model_dataset_names(data, ["churn"]) == []


def test_a_sample_of_reads_holds_the_oldest_and_the_newest_and_another_night_others():
    many = [f"{number:08d}" for number in range(1_000)]
    one, other = sampled_reads(many), sampled_reads([*many, "new"])
    assert (one[0], one[-1], len(set(one))) == (many[0], many[-1], SAMPLED_READS)
    assert one == sorted(one)
    assert sampled_reads(many) == one
    assert not set(one[1:-1]) & set(other[1:-1])
    assert sampled_reads(many[:3]) == many[:3]
    assert sampled_reads([]) == []


def test_of_many_rows_a_sample_of_buckets_is_looked_at():
    assert digest_bucket_limit(MAX_DIGEST_ROWS) is None
    assert digest_bucket_limit(MAX_DIGEST_ROWS * 10) == 1_000
    assert digest_bucket_limit(MAX_DIGEST_ROWS * 10**6) == 1


ONE = DatasetMaintenance(
    "churn", 40, StorageStats(40, 4_000_000, 40), StorageStats(41, 7_500_000, 1), 40, 2, 1_500_000, 5, 5
)


def test_the_report_says_before_and_after_of_each_data_set():
    text = maintenance_markdown([ONE], dry_run=False)
    assert "| churn | 40 | 40 → 1 | 40 → 41 | 4.0 MB → 7.5 MB | 40 | 2 (1.5 MB) | 5, 5 |" in text
    assert "40 small files now lie in larger ones too; 2 orphans (1.5 MB) were removed; of 5 reads" in text
    assert "5 were repeated afterwards, each with the same rows" in text


def test_the_report_of_a_dry_run_says_that_nothing_was_done():
    text = maintenance_markdown([ONE], dry_run=True)
    assert "nothing was written or removed" in text
    assert "would lie" in text
    assert "would be removed" in text


def test_a_data_set_that_was_left_alone_is_named_with_its_reason():
    assert "**flights** is not in order: checksum mismatch" in maintenance_markdown(
        [ONE, DatasetMaintenance("flights", problem="checksum mismatch")], dry_run=False
    )
    assert "nothing has landed" in maintenance_markdown([], dry_run=False)
