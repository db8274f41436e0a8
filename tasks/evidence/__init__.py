"""The evidence pack of a promoted model, and the reproduction of the model from it."""
