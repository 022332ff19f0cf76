"""The proof: every case beside its peers. `make bench` runs it; run.py is the command."""
