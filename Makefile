# Two commands work on a fresh machine: `make demo` and `make test`. The rest is for developers.
