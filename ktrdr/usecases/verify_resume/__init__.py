"""Check on a user's strategy and bars that resuming changes nothing.

The strategy is trained twice: straight, and with stops and kills. `verification` is the parent
process, which needs neither torch nor Ray; `attempt` is the child process that it starts for each
attempt; `shared_counters` holds the files by which the two communicate.
"""
