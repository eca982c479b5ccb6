"""Data: ingest images from anywhere, validate them, and build the triplets that an edit trains on."""
