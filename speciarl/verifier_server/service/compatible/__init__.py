"""The wire format of the paper's release: judging, lists of names, and what was judged for a run."""
