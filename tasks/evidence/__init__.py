"""The evidence pack of a promoted model, and the proof that the model can be trained again from it."""
