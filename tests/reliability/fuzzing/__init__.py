"""What `fuzz.py` draws, runs and judges."""
