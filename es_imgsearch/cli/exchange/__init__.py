"""Commands that exchange vectors and objects of Kibana with others."""
