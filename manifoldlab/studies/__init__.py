"""What experiments are made of: grounds of known truth, populations of networks, what is seen of them."""
