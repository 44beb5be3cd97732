"""A local Octogen for tests and first steps: a real HTTP server on loopback.

It follows Octogen's public contract and does not use the client in this package, so that a mistake
in one of them is not repeated in the other.
"""
