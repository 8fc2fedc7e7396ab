"""What runs any table of stages, resumes it and records it; it knows no stage."""
