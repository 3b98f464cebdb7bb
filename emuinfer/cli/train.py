"""`emuinfer train`: train a transformer emulator on a grid, or fine-tune one."""

from ..files import use_compilation_cache
from . import options_training as o
from .options import telling


def train(
    grid: o.GridFile,
    output: o.Output,
    init: o.InitOrTeacher = None,
    directory: o.RunFolder = None,
    resume: o.Resume = True,
    steps: o.Steps = 20_000,
    warmup: o.Warmup = 500,
    decay: o.Decay = 0.4,
    learning_rate: o.Rate = 3e-3,
    weight_decay: o.WeightDecay = 1e-3,
    spectra: o.Spectra = 16,
    pixels: o.Pixels = 1024,
    held_out: o.HeldOut = 0.1,
    checkpoint_every: o.CheckpointEvery = 500,
    validate_every: o.ValidateEvery = 500,
    width: o.Width = 64,
    depth: o.Blocks = 2,
    heads: o.Heads = 4,
    tokens: o.Tokens = 16,
    label_hidden: o.LabelHidden = 256,
    frequencies: o.Frequencies = 64,
    rank: o.Rank = 128,
    optimiser: o.Optimiser = "adamw",
    precision: o.Precision = "float32",
    devices: o.Devices = 1,
    replay: o.ReplayFile = None,
    replay_share: o.ReplayShare = 0.5,
    patience: o.Patience = 0,
    seed: o.TrainSeed = 0,
    title: o.Title = "",
    overwrite: o.Overwrite = False,
    quiet: o.Quiet = False,
):
    """Train an emulator on a grid. Started again after an interruption, it goes on from the last checkpoint.

    A new emulator starts from principal components of the training spectra if their wavelengths are equally spaced; --init
    goes on from one that exists, which must have the grid's labels, wavelength range and medium.

    Its card records the grid's hash, the recipe, versions, and errors on the held-out spectra, natively sampled and at
    R = 40,000.

    \b
    Examples:
      emuinfer train lte.h5 --steps 20000 --output lte-emulator
      emuinfer train realistic.h5 --init lte-emulator --learning-rate 1e-3 --steps 5000 --replay lte.h5 --output tuned
    """
    stem = o.stem_of(output, overwrite)
    use_compilation_cache()
    from ..emulators.training import TrainConfig, format_table, train_on_grid

    sizes = dict(
        width=width, depth=depth, heads=heads, tokens=tokens, label_hidden=label_hidden, frequencies=frequencies, rank=rank
    )  # fmt: skip
    config = TrainConfig(
        steps=steps, warmup=warmup, decay=decay, learning_rate=learning_rate, weight_decay=weight_decay, spectra=spectra,
        pixels=pixels, optimiser=optimiser, precision=precision, devices=devices, replay=replay_share, patience=patience,
        validate_every=validate_every, checkpoint_every=checkpoint_every, seed=seed,
    )  # fmt: skip
    directory = directory or stem.with_name(stem.name + ".run")
    with telling(f"Start the same command again to go on from the last checkpoint in {directory}."):
        emulator, card = train_on_grid(
            grid, init, config, sizes=sizes, held_out=held_out, replay=replay, title=title,
            directory=directory, resume=resume, progress=not quiet,
        )  # fmt: skip
    print(format_table(card["validation"]))
    o.save(emulator, stem, card)
