"""Which rows a tier holds and in which order: hash buckets, joins, tiers, digests of content."""
