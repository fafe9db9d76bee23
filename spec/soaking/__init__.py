"""What `spec/soak` is made of beyond that: who comes, what goes wrong."""
