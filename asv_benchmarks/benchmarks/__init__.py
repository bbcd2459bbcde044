"""The suite for asv: `python asv_benchmarks/dashboard.py --help` says how to run it."""
