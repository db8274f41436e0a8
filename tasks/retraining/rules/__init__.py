"""The retrain guard: may a model be retrained by itself, because watching found something?"""
