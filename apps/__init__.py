"""What a user does with photos and finished heads: one file an operation, each callable without the command line.

`pmv.apps.cli` is the command line over them.
"""
