"""Makes the shipped table of line errors: `python -m emuinfer.recipes.line_errors optical-fgk DEST`."""

import argparse

from ..emulators import load_emulator
from ..likelihoods.line_errors import PER_DEX, measure_line_errors


def main(argv=None):
    parser = argparse.ArgumentParser(
        description="Make the table of line errors from the packaged spectrum of HD 41248."
    )
    parser.add_argument("emulator")
    parser.add_argument("destination")
    parser.add_argument("--per-dex", type=float, default=PER_DEX)
    args = parser.parse_args(argv)
    measure_line_errors(load_emulator(args.emulator), per_dex=args.per_dex).save(args.destination)


if __name__ == "__main__":
    main()
