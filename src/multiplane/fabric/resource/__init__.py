"""Resource plane of the fabric at one site: key pools of its links, and the relay that spends them.

Pure state and decisions. A pool is volatile: a new epoch of the link burns it, so no pad outlives a restart
of either end and no hop needs a disk write.
"""
