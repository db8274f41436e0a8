"""The evidence pack of a promoted model: what belongs into it, and how people read it."""
