"""The recipe: one file a stage, the ordered table, the runner. Never reads command-line arguments."""
