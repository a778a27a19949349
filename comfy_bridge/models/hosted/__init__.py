"""Our networks under the host's calling convention, and its model objects around them."""
