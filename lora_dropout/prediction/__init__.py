"""The test-time ensemble and what is measured of its predictions."""
