"""Lanes: how many make a warp, and what one may be about."""

WARP, WARPGROUP = 32, 128

#: A lane that waits runs on when what it waits for has come.
RUNS, DONE, AT_BARRIER, AT_WARP, AT_CLUSTER, AT_MBARRIER, AT_WARPGROUP = range(7)
