"""Commands that exchange vectors, snapshots and objects of Kibana with others."""
