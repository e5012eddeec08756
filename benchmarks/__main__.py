"""Run every benchmark, one after the other."""

from benchmarks import masks

if __name__ == "__main__":
    masks.main()
