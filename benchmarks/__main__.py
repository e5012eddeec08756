"""Run every benchmark with its defaults, one after the other; each is also a command with `--help`."""

from benchmarks import loader, masks, models, official_scores, side_by_side, startup, training

if __name__ == "__main__":
    for benchmark in (startup, masks, official_scores, loader, models, training, side_by_side):
        print(f"== python -m {benchmark.__name__}", flush=True)
        benchmark.main()
