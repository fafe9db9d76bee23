"""What `spec/fail-closed` is made of: certificates, the stack around Kong, the load, the faults."""
