"""The domain: frozen values and pure functions that know nothing of torch, vendors or servers."""
