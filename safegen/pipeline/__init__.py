"""The stages of a run: each takes the platform and the values of earlier stages, and returns one frozen value.

ingest -> validate -> triplets -> edit -> evaluate -> gate -> promote
"""
