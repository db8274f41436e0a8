"""Rules of maintenance: which data sets and reads a run covers, and its report."""

from tasks.cleanup.rules.maintenance import (
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


MANY = [f"{number:08d}" for number in range(1_000)]


def test_a_sample_of_reads_holds_the_oldest_and_the_newest_in_order():
    one = sampled_reads(MANY)
    assert (one[0], one[-1], len(set(one))) == (MANY[0], MANY[-1], SAMPLED_READS)
    assert one == sorted(one)


def test_a_sample_of_the_same_reads_is_the_same_and_another_night_holds_others():
    one, other = sampled_reads(MANY), sampled_reads([*MANY, "new"])
    assert sampled_reads(MANY) == one
    assert not set(one[1:-1]) & set(other[1:-1])


def test_a_sample_of_few_reads_is_all_of_them():
    assert sampled_reads(MANY[:3]) == MANY[:3]
    assert sampled_reads([]) == []


def test_of_many_rows_a_sample_of_buckets_is_looked_at():
    assert digest_bucket_limit(MAX_DIGEST_ROWS) is None
    assert digest_bucket_limit(MAX_DIGEST_ROWS * 10) == 1_000
    assert digest_bucket_limit(MAX_DIGEST_ROWS * 10**6) == 1


ONE = DatasetMaintenance(
    "churn", 40, StorageStats(40, 4_000_000, 40), StorageStats(41, 7_500_000, 1), 40, 2, 1_500_000, 5, 5, 3
)


def test_the_report_says_before_and_after_of_each_data_set():
    text = maintenance_markdown([ONE], dry_run=False)
    assert "| churn | 40 | 40 → 1 | 40 → 41 | 4.0 MB → 7.5 MB | 40 | 2 (1.5 MB) | 5, 5 | 3 |" in text
    assert "40 small files were merged; 2 orphaned files (1.5 MB) were removed. The files of 5 reads" in text
    assert "5 reads were repeated afterwards and returned the same rows" in text


def test_the_report_of_a_dry_run_says_that_nothing_was_done():
    text = maintenance_markdown([ONE], dry_run=True)
    assert "nothing was written or removed" in text
    assert "would be merged" in text
    assert "would be removed" in text


def test_a_data_set_that_was_left_alone_is_named_with_its_reason():
    assert "**flights** has a problem: checksum mismatch" in maintenance_markdown(
        [ONE, DatasetMaintenance("flights", problem="checksum mismatch")], dry_run=False
    )
    odd = DatasetMaintenance("clocks", not_published="column 'at' is time64[us]")
    assert "**clocks** has no Delta table: column 'at' is time64\\[us\\]." in maintenance_markdown([odd], dry_run=False)
    assert "nothing was ingested" in maintenance_markdown([], dry_run=False)
