"""A network laboratory on one Linux machine; README.md beside this file shows how to use it.

Its child processes load as little as possible, so nothing is imported here.
"""
