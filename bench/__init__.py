"""What the README's figures come from: mitml4 side by side with its peers, in one run.

`python -m bench` (as root) lays a client, a router and a server into network namespaces, puts one
proxy after the other into the router, gives each the same load, and reports medians. See
docs/benchmarks.md for what is measured and how.
"""
