"""Detectors: what finds the restricted concept in a picture. Each implements `safegen.ports.Detector`."""
