"""Judges that we start: vLLM processes on Ray, watched and restarted."""
