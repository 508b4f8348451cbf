"""What tests of streamad and of its users share: doubles, contract checks, a real broker."""
