"""The demo shop in a real browser, over the real stack."""
