"""What each part of the recipe buys: fine-tunings on the same rows that differ in one thing, with several seeds.

    rasid-train ablate --work runs/mine --data real.dev.jsonl --out runs/ablations.jsonl

The rows are a fixed sample of those of a fitted run; the figures are small-scale ones, to be compared with each other alone.
"""
