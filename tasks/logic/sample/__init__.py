"""Which rows a tier holds, how the tables of a model are joined, and which rows decide."""
