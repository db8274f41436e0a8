"""Hold rows against the model's expectations where they lie; fails closed."""
