"""Faults over real processes: the cluster, the network, the clients and the checker of Bench/faults."""
