"""Files that are whole or absent, the manifest of published checkpoints, and their downloads."""
