"""The supervisor actor: the root of a node's actors, and its place in the cluster."""
