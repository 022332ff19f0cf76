"""The proof: every case beside its peers. `make bench` runs it on pytest-benchmark."""
