"""Judge requests and how their replies are read: prompts, label sets, decoding, the start-up probe."""
