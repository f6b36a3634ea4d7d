"""HTTP to the endpoints of a judge: routing, retries, batching."""
