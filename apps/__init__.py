"""What people look at or run at scale. Nothing here yet: the command line is ``run_inversion.py``."""
