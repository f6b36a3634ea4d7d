"""What a judge is asked and how its reply is read: prompts, labels, decoding, the start-up probe."""
