"""HTTP client of judge endpoints: routing, circuit breakers, retries, batching."""
