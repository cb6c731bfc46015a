"""What a model uses on the real server, recorded, and the smallest policy that covers it."""
