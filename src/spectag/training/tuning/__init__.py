"""Search for settings: the learning-rate finder, and studies with Optuna."""
