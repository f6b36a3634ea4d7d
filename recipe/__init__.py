"""Hydra recipes: ``python -m verl.trainer.main_ppo +recipe=speciarl``. This package holds configuration only."""
