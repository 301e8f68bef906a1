"""The stores of roots on a machine, and how the authority comes into them and out of them."""
