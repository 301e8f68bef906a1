"""What `make soak` consists of: a lab, servers, clients, faults, and what is measured."""
