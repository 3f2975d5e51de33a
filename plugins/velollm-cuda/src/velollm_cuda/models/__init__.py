"""The families of models: one transformer, and what each family does differently, as data."""
