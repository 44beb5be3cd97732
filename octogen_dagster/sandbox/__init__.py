"""A local Octogen for tests and first steps: a real HTTP server on loopback.

It is written from Octogen's public contract and knows nothing of the client in this
package, so that the two can be wrong independently.
"""
