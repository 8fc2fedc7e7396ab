"""The recipe: one file a stage, the ordered table, what the user gives to it. Never reads command-line arguments."""
