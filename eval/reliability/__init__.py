"""Proofs that the service stays calm: overload, faults, a long soak, fuzzed texts. Figures stand in docs/reliability.md."""
