"""Judge pool: vLLM servers that we start on Ray, monitor and restart."""
