"""What was judged for whom: the runs of a service and their verdict log."""
