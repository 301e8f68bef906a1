"""HTTP in all its versions, and the two layers that a request of HTTP/1 can turn into."""
