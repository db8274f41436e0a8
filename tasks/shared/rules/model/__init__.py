"""`model.yaml` and the other files that a person writes: read strictly, every mistake named at once."""
