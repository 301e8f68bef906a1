"""The benchmarks: mitml4 compared with its peers, in one run.

`python -m bench` (as root) puts a client, a router and a server into network namespaces, starts one
proxy after the other in the router, gives each the same load, and reports medians.
docs/benchmarks.md describes what is measured and how.
"""
