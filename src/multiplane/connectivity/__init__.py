"""The Connectivity Stratum: quantum paths and their classical companions."""
